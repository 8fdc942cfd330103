//! Who may call what: every method of ours times every kind of caller, on both databases, held against `access.txt`.

// proves COM-17
#[tokio::test]
async fn rights_on_the_operator_can_be_asked_about() {
    use entente::proto::access::TestMyPermissionsRequest;
    crate::harness::both(async |site| {
        let contoso = site.tenant("contoso").await;
        let request = TestMyPermissionsRequest {
            resource: "operator".to_owned(),
            permissions: vec!["staff.manage".to_owned(), "ledger.record".to_owned()],
        };
        let operator = site.operator().await;
        let mine = operator.access().test_my_permissions(request.clone()).await;
        assert_eq!(mine.unwrap().into_inner().permissions, ["staff.manage"]);
        let theirs = contoso.admin.caller.access().test_my_permissions(request).await;
        assert!(theirs.unwrap().into_inner().permissions.is_empty());
    })
    .await;
}

// proves COM-2
#[tokio::test]
async fn explanations_do_not_tell_whether_strangers_exist() {
    use entente::proto::access::ExplainAccessRequest;
    crate::harness::both(async |site| {
        let contoso = site.tenant("contoso").await;
        let fabrikam = site.tenant("fabrikam").await;
        let there = contoso.admin.name.clone();
        let (tenant, _) = there.rsplit_once('/').unwrap();
        let not_there = format!("{tenant}/{}", crate::harness::request_id());
        let mut told = Vec::new();
        for principal in [there, not_there] {
            let request = ExplainAccessRequest {
                resource: fabrikam.name.clone(),
                principal,
                permission: "tenant.read".to_owned(),
            };
            let access = || fabrikam.admin.caller.access();
            told.push(access().explain_access(request).await.unwrap().into_inner());
        }
        assert_eq!(told[0], told[1]);
    })
    .await;
}
