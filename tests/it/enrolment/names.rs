//! Publisher names.

use entente::proto::{
    account::{Account, CheckPublisherNameRequest, PublisherNameAvailability as Availability},
    operator::{
        CreateReservedNameRequest, DeleteReservedNameRequest, ListReservedNamesRequest,
        ReservedName,
    },
};
use futures_util::future::join_all;
use tonic::{Code, Response, Status};

use super::{draft_of, member_tenant, open, update, whole};
use crate::{
    harness::{Caller, both, fields, refused, request_id},
    people::denied,
};

/// Reserves a name.
pub async fn reserve(caller: &Caller, display_name: &str) -> Result<ReservedName, Status> {
    let request = CreateReservedNameRequest {
        reserved_name: Some(ReservedName {
            display_name: display_name.to_owned(),
            ..ReservedName::default()
        }),
        ..CreateReservedNameRequest::default()
    };
    let done = caller.reserved_names().create_reserved_name(request).await;
    done.map(Response::into_inner)
}

pub async fn availability(caller: &Caller, name: &str) -> Availability {
    let request = CheckPublisherNameRequest {
        publisher_display_name: name.to_owned(),
        account: String::new(),
    };
    let done = caller.accounts().check_publisher_name(request).await;
    done.unwrap().into_inner().availability()
}

// proves ACC-4
#[tokio::test]
async fn a_publisher_name_is_one_accounts_however_it_is_written() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let fay = &fabrikam.admin.caller;
        assert_eq!(availability(fay, "Contoso").await, Availability::Available);
        let made = open(&contoso.admin.caller, draft_of(whole("Contoso")))
            .await
            .unwrap();
        let theirs = open(fay, draft_of(whole("Fabrikam"))).await.unwrap();
        let theirs = theirs.account.unwrap();
        for name in [
            "Contoso",
            "CONTOSO",
            "ＣＯＮＴＯＳＯ",
            "C\u{43e}ntoso",
            "\u{421}\u{41e}NTOSO",
            " contoso ",
        ] {
            assert_eq!(availability(fay, name).await, Availability::Taken, "{name}");
            let renamed = Account {
                publisher_display_name: name.to_owned(),
                ..theirs.clone()
            };
            let tried = update(fay, renamed, &["publisher_display_name"]).await;
            let status = refused(tried, Code::AlreadyExists, "PUBLISHER_NAME_TAKEN");
            assert_eq!(fields(&status), ["account.publisher_display_name"]);
        }
        // One's own can be written anew; the name before is free then.
        let mine = made.account.unwrap();
        for (name, before) in [("CONTOSO", "Contoso"), ("Northwind", "Contoso")] {
            let renamed = Account {
                publisher_display_name: name.to_owned(),
                ..mine.clone()
            };
            update(&contoso.admin.caller, renamed, &["publisher_display_name"])
                .await
                .unwrap();
            let expected = if name == "Northwind" {
                Availability::Available
            } else {
                Availability::Taken
            };
            assert_eq!(availability(fay, before).await, expected, "{name}");
        }
        assert_eq!(availability(fay, "northwind").await, Availability::Taken);
    })
    .await;
}

// proves ACC-4
#[tokio::test]
async fn an_accounts_own_name_in_other_letters_is_free_to_it_alone() {
    both(async |site| {
        let contoso = member_tenant(&site, "contoso").await;
        let fabrikam = member_tenant(&site, "fabrikam").await;
        let (ann, fay) = (&contoso.admin.caller, &fabrikam.admin.caller);
        let made = open(ann, draft_of(whole("Contoso"))).await.unwrap();
        let account = made.account.unwrap().name;
        let asked = CheckPublisherNameRequest {
            publisher_display_name: "CONTOSO".to_owned(),
            account: account.clone(),
        };
        let told = ann.accounts().check_publisher_name(asked.clone()).await;
        let told = told.unwrap().into_inner().availability();
        assert_eq!(told, Availability::Available);
        assert_eq!(availability(ann, "CONTOSO").await, Availability::Taken);
        // Whose it is, is told to nobody by asking for accounts.
        denied(fay.accounts().check_publisher_name(asked.clone()).await);
        let nobodys = CheckPublisherNameRequest {
            account: format!("accounts/{}", request_id()),
            ..asked
        };
        denied(fay.accounts().check_publisher_name(nobodys).await);
    })
    .await;
}

// proves ACC-4
#[tokio::test]
async fn of_many_who_want_a_name_at_once_one_gets_it() {
    both(async |site| {
        let mut tenants = Vec::new();
        for prefix in ["contoso", "fabrikam", "adatum", "northwind"] {
            tenants.push(member_tenant(&site, prefix).await);
        }
        let names = ["Tailspin", "TAILSPIN", "T\u{430}ilspin", "Tailspln"];
        let tries = tenants
            .iter()
            .zip(names)
            .map(|(tenant, name)| open(&tenant.admin.caller, draft_of(whole(name))));
        let done = join_all(tries).await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1);
        for lost in done.into_iter().filter(Result::is_err) {
            refused(lost, Code::AlreadyExists, "PUBLISHER_NAME_TAKEN");
        }
    })
    .await;
}

// proves ACC-4
#[tokio::test]
async fn names_that_the_operator_reserved_are_nobodys() {
    both(async |site| {
        let operator = site.operator().await;
        let contoso = member_tenant(&site, "contoso").await;
        let ann = &contoso.admin.caller;
        denied(reserve(ann, "Fourth Coffee").await);
        let kept = reserve(&operator, "Fourth Coffee").await.unwrap();
        let again = reserve(&operator, "FOURTH C\u{43e}ffee").await;
        refused(again, Code::AlreadyExists, "RESOURCE_EXISTS");
        for name in ["Fourth Coffee", "fourth  coffee", "F\u{43e}urth Coffee"] {
            assert_eq!(
                availability(ann, name).await,
                Availability::Reserved,
                "{name}"
            );
            let tried = open(ann, draft_of(whole(name))).await;
            refused(tried, Code::AlreadyExists, "PUBLISHER_NAME_RESERVED");
        }
        let request = ListReservedNamesRequest::default();
        let listed = operator.reserved_names().list_reserved_names(request).await;
        assert_eq!(
            listed.unwrap().into_inner().reserved_names,
            std::slice::from_ref(&kept)
        );
        let request = DeleteReservedNameRequest {
            name: kept.name.clone(),
            etag: kept.etag.clone(),
            ..DeleteReservedNameRequest::default()
        };
        let mut service = operator.reserved_names();
        let gone = service.delete_reserved_name(request.clone()).await;
        assert_eq!(gone.unwrap().into_inner().resources, [kept]);
        refused(
            service.delete_reserved_name(request).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
        );
        open(ann, draft_of(whole("Fourth Coffee"))).await.unwrap();
    })
    .await;
}
