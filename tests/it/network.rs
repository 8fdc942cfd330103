//! NetworkService: joining the partner network, and whose a membership is.

use entente::proto::account::{
    Contact, GetMembershipRequest, JoinNetworkRequest, NetworkMembership, UpdateMembershipRequest,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    harness::{Caller, both, fields, refused},
    people::{People as _, application, denied, events, identity, mask, sign_in_by_key},
};

/// A contact whose every part is good.
pub fn contact(name: &str) -> Contact {
    Contact {
        display_name: name.to_owned(),
        email: format!("{}@contoso.example", name.to_lowercase()),
        phone_number: "+33142685300".to_owned(),
    }
}

/// A membership to be made.
pub fn new_membership(legal_name: &str) -> NetworkMembership {
    NetworkMembership {
        legal_name: legal_name.to_owned(),
        country_code: "FR".to_owned(),
        website_uri: "https://contoso.example/".to_owned(),
        contact: Some(contact("Carla")),
        ..NetworkMembership::default()
    }
}

/// Joins the network.
pub async fn join(
    caller: &Caller,
    network_membership: NetworkMembership,
) -> Result<NetworkMembership, Status> {
    let request = JoinNetworkRequest {
        network_membership: Some(network_membership),
        ..JoinNetworkRequest::default()
    };
    let done = caller.network().join_network(request).await;
    done.map(Response::into_inner)
}

async fn get(caller: &Caller, name: &str) -> Result<NetworkMembership, Status> {
    let name = name.to_owned();
    let request = GetMembershipRequest { name };
    let done = caller.network().get_membership(request).await;
    done.map(Response::into_inner)
}

pub async fn update(
    caller: &Caller,
    network_membership: NetworkMembership,
    paths: &[&str],
    etag: &str,
) -> Result<NetworkMembership, Status> {
    let request = UpdateMembershipRequest {
        network_membership: Some(network_membership),
        update_mask: Some(mask(paths)),
        etag: etag.to_owned(),
        ..UpdateMembershipRequest::default()
    };
    let done = caller.network().update_membership(request).await;
    done.map(Response::into_inner)
}

// proves NET-1
#[tokio::test]
async fn a_company_joins_the_network_and_its_contact_keeps_the_membership() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let dee = site.person(&contoso, "dee").await;
        let made = join(&dee.caller, new_membership("Contoso SA"))
            .await
            .unwrap();
        assert!(made.partner_id.starts_with('P'));
        assert_eq!(
            (made.joined_by.as_str(), made.account.as_str()),
            (dee.name.as_str(), "")
        );
        assert_eq!(
            events(&site, "account.v1.NetworkJoined", &made.name).await,
            1
        );
        assert_eq!(get(&dee.caller, &made.name).await.unwrap(), made);
        // One at a time, also two at once.
        let status = refused(
            join(&dee.caller, new_membership("Contoso Two")).await,
            Code::AlreadyExists,
            "ALREADY_NETWORK_MEMBER",
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["membership"], made.name);
        let ida = identity(&site, "ida@new.example").await;
        let done = futures_util::future::join_all(
            (0..8).map(|_| join(&ida.caller, new_membership("Ida SARL"))),
        )
        .await;
        assert_eq!(done.iter().filter(|d| d.is_ok()).count(), 1);

        // Nobody else's, whether or not it is there; not even the tenant's admin's.
        let none = made.name.replace(&made.name[19..23], "ffff");
        for caller in [&contoso.admin.caller, &ida.caller, &site.operator().await] {
            denied(get(caller, &made.name).await);
            denied(get(caller, &none).await);
            let other = NetworkMembership {
                name: made.name.clone(),
                legal_name: "Mine".to_owned(),
                ..NetworkMembership::default()
            };
            denied(update(caller, other, &["legal_name"], "").await);
        }
        let robot = application(&contoso.admin.caller, &contoso.name, "Robot").await;
        let key = contoso.admin.caller.key(&robot.name).await.unwrap();
        let tokens = sign_in_by_key(&site, &robot.client_id, &key.secret).await;
        let robot = site.with_token(&tokens.unwrap().access_token);
        refused(
            join(&robot, new_membership("Robot")).await,
            Code::PermissionDenied,
            "PEOPLE_ONLY",
        );
    })
    .await;
}

// proves NET-1, ACC-5
#[tokio::test]
async fn a_membership_is_changed_by_its_contact_and_told_what_is_wrong_at_once() {
    both(async |site| {
        let contoso = site.tenant("contoso").await;
        let dee = site.person(&contoso, "dee").await;
        let mut bad = new_membership("Contoso SA");
        bad.country_code = "XX".to_owned();
        bad.website_uri = "ftp://contoso.example".to_owned();
        bad.contact = Some(Contact {
            display_name: String::new(),
            email: "nobody".to_owned(),
            phone_number: "+33 1 42 68 53 00".to_owned(),
        });
        let status = refused(
            join(&dee.caller, bad).await,
            Code::InvalidArgument,
            "INVALID_FIELDS",
        );
        let mut named = fields(&status);
        named.sort();
        let of = |field: &str| format!("network_membership.{field}");
        assert_eq!(
            named,
            [
                of("contact.display_name"),
                of("contact.email"),
                of("contact.phone_number"),
                of("country_code"),
                of("website_uri")
            ]
        );
        // Numbers that no country has, extensions, local forms.
        for number in [
            "+33142685",
            "0142685300",
            "+33142685300x12",
            "+9991234567",
            "+",
            "33142685300",
        ] {
            let mut bad = new_membership("Contoso SA");
            bad.contact.as_mut().unwrap().phone_number = number.to_owned();
            let status = refused(
                join(&dee.caller, bad).await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), [of("contact.phone_number")], "{number}");
        }

        let made = join(&dee.caller, new_membership("Contoso SA"))
            .await
            .unwrap();
        let mut changed = made.clone();
        changed.legal_name = "Contoso SAS".to_owned();
        changed.contact = Some(contact("Dora"));
        let done = update(
            &dee.caller,
            changed.clone(),
            &["legal_name", "contact"],
            &made.etag,
        );
        let done = done.await.unwrap();
        assert_eq!(done.legal_name, "Contoso SAS");
        assert_eq!(done.contact, Some(contact("Dora")));
        assert_eq!(done.partner_id, made.partner_id);
        assert_eq!(
            events(&site, "account.v1.NetworkMembershipUpdated", &made.name).await,
            1
        );
        refused(
            update(&dee.caller, changed.clone(), &["legal_name"], &made.etag).await,
            Code::Aborted,
            "ETAG_MISMATCH",
        );
        for fixed in ["partner_id", "country_code", "account", "joined_by"] {
            let status = refused(
                update(&dee.caller, changed.clone(), &[fixed], "").await,
                Code::InvalidArgument,
                "INVALID_FIELDS",
            );
            assert_eq!(fields(&status), ["update_mask"], "{fixed}");
        }
        assert_eq!(get(&dee.caller, &made.name).await.unwrap(), done);
    })
    .await;
}
