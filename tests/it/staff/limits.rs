//! Limits of calls (COM-18).

use std::time::{Duration, Instant};

use entente::proto::{
    access::{CallKind, CallLimit, GetLimitsRequest},
    directory::{ChangePasswordRequest, SignOutRequest},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Caller, Database, PASSWORD, Site, refused};

const METHOD: &str = "entente.directory.v1.SessionService/ChangePassword";

/// A call that is counted, and refused for its fields before anything is hashed.
async fn knock(who: &Caller) -> Result<(), Status> {
    let request = ChangePasswordRequest {
        old_password: PASSWORD.to_owned(),
        new_password: "short".to_owned(),
        request_id: String::new(),
    };
    who.sessions().change_password(request).await.map(|_| ())
}

/// Knocks until nothing is left; gives the limits as they are then, and the time told until the next call. On a busy machine that time may be
/// over before they are told: then it knocks again.
async fn spent(who: &Caller) -> (Vec<CallLimit>, Duration) {
    loop {
        let begun = Instant::now();
        let status = knock(who).await.unwrap_err();
        if status.code() != Code::ResourceExhausted {
            continue;
        }
        let wait = status.get_details_retry_info().unwrap().retry_delay;
        let limits = who.access().get_limits(GetLimitsRequest {}).await.unwrap();
        if begun.elapsed() < wait.unwrap() {
            return (limits.into_inner().limits, wait.unwrap());
        }
    }
}

// proves COM-18
#[tokio::test]
async fn whoever_has_a_token_that_is_over_uses_up_nothing_of_its_owner() {
    let site = Site::open_with(Database::Sqlite, |c| c.limits_factor = 1).await;
    let contoso = site.tenant("contoso").await;
    let bob = site.person(&contoso, "bob").await;
    let stolen = site.sign_in(&bob.sign_in_name, PASSWORD).await;
    let signed_out = stolen.sessions().sign_out(SignOutRequest::default()).await;
    signed_out.unwrap();
    let mut passed = 0;
    let status = loop {
        let status = knock(&stolen).await.unwrap_err();
        if status.code() == Code::ResourceExhausted {
            break status;
        }
        refused::<()>(Err(status), Code::Unauthenticated, "TOKEN_INVALID");
        passed += 1;
        assert!(passed < 40, "no limit");
    };
    refused::<()>(Err(status), Code::ResourceExhausted, "TOO_MANY_CALLS");
    for _ in 0..5 {
        let status = knock(&bob.caller).await.unwrap_err();
        refused::<()>(Err(status), Code::InvalidArgument, "INVALID_FIELDS");
    }
}

// proves COM-18
#[tokio::test]
async fn whoever_calls_too_often_waits_and_nobody_else_does() {
    for database in [Database::Sqlite, Database::Postgres] {
        let site = Site::open_with(database, |c| c.limits_factor = 1).await;
        let contoso = site.tenant("contoso").await;
        let bob = site.person(&contoso, "bob").await.caller;
        let ann = &contoso.admin.caller;
        // Both chose their first password with other tokens of theirs: one call is spent.
        let mut passed = 0;
        let status = loop {
            let status = knock(ann).await.unwrap_err();
            if status.code() == Code::ResourceExhausted {
                break status;
            }
            refused::<()>(Err(status), Code::InvalidArgument, "INVALID_FIELDS");
            passed += 1;
            assert!(passed < 40, "no limit");
        };
        assert!((5..=20).contains(&passed), "{passed}");
        let status = refused::<()>(Err(status), Code::ResourceExhausted, "TOO_MANY_CALLS");
        let wait = status.get_details_retry_info().unwrap().retry_delay;
        assert!(wait.is_some_and(|w| !w.is_zero() && w.as_secs() <= 60));
        let quota = status.get_details_quota_failure().unwrap();
        assert!(!quota.violations.is_empty());
        // Another caller of the same method, and the same caller of another one, aren't held up.
        refused(knock(&bob).await, Code::InvalidArgument, "INVALID_FIELDS");
        let (limits, wait) = spent(ann).await;
        let limit = limits.iter().find(|l| l.method == METHOD).unwrap();
        assert_eq!((limit.burst, limit.calls_per_minute), (10, 30));
        assert_eq!(limit.remaining, 0);
        let kinds = |of: &str| -> Vec<_> {
            let of = limits.iter().filter(|l| l.method == of);
            of.map(|l| (l.kind(), l.calls_per_minute)).collect()
        };
        assert_eq!(
            kinds(""),
            [
                (CallKind::Read, 60_000),
                (CallKind::Mutation, 6_000),
                (CallKind::StreamOut, 600),
                (CallKind::StreamIn, 600),
                (CallKind::Upload, 600),
                (CallKind::Download, 600),
            ]
        );
        // Whatever has a limit of its own is there before it was ever called.
        for (path, _) in crate::dynamic::methods() {
            let rule = entente::access::rules::of_path(&path).unwrap();
            let declared = rule.declared.calls_per_minute;
            if declared > 0 {
                assert_eq!(kinds(rule.method), [(rule.kind, declared)], "{path}");
            }
        }
        let theirs = bob.access().get_limits(GetLimitsRequest {}).await.unwrap();
        let theirs = theirs.into_inner().limits;
        let limit = theirs.iter().find(|l| l.method == METHOD).unwrap();
        assert!(limit.remaining >= 5);
        // After the time told, one call passes.
        tokio::time::sleep(wait + Duration::from_millis(50)).await;
        refused(knock(ann).await, Code::InvalidArgument, "INVALID_FIELDS");
    }
}
