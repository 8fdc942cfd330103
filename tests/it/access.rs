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
