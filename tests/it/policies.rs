//! PolicyService: what the operator decides, from a date on.

use entente::proto::operator::{
    GetPolicyRequest, ListPoliciesRequest, OperatorRole, Policy, PolicyKey, SetPolicyRequest,
};
use prost_types::Timestamp;
use tonic::{Code, Response, Status};

use crate::{
    agreements::now,
    harness::{Caller, both, fields, refused},
    people::{denied, events, staff},
};

/// The value of a policy.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    Flag(bool),
    Number(i64),
}

/// Sets a policy, at once or at an instant in seconds.
pub async fn set(
    caller: &Caller,
    key: PolicyKey,
    value: Value,
    from: Option<i64>,
) -> Result<Policy, Status> {
    let request = SetPolicyRequest {
        policy: Some(Policy {
            key: key as i32,
            flag: matches!(value, Value::Flag(true)),
            number: if let Value::Number(n) = value { n } else { 0 },
            effective_time: from.map(|seconds| Timestamp { seconds, nanos: 0 }),
            ..Policy::default()
        }),
        ..SetPolicyRequest::default()
    };
    let done = caller.policies().set_policy(request).await;
    done.map(Response::into_inner)
}

async fn get(caller: &Caller, key: PolicyKey) -> Result<Policy, Status> {
    let request = GetPolicyRequest { key: key as i32 };
    let done = caller.policies().get_policy(request).await;
    done.map(Response::into_inner)
}

// proves OFR-1
#[tokio::test]
async fn a_policy_is_in_force_from_its_date_on_and_what_was_set_stays() {
    both(async |site| {
        let operator = site.operator().await;
        let (review, gold) = (PolicyKey::OfferReviewApp, PolicyKey::GoldCompetencies);
        let default = get(&operator, gold).await.unwrap();
        assert_eq!((default.number, default.name.as_str()), (3, ""));
        let start = now(&site).await;
        let first = set(&operator, gold, Value::Number(5), None).await.unwrap();
        assert_eq!(events(&site, "operator.v1.PolicySet", &first.name).await, 1);
        assert_eq!(get(&operator, gold).await.unwrap(), first);
        let later = set(&operator, gold, Value::Number(7), Some(start + 600));
        let later = later.await.unwrap();
        assert_eq!(get(&operator, gold).await.unwrap(), first);
        // Of two for one time, the one that was set last.
        set(&operator, gold, Value::Number(8), Some(start + 1_200))
            .await
            .unwrap();
        set(&operator, gold, Value::Number(9), Some(start + 1_200))
            .await
            .unwrap();
        site.advance(601).await;
        assert_eq!(get(&operator, gold).await.unwrap(), later);
        site.advance(600).await;
        let operator = site.operator().await;
        let told = get(&operator, gold).await.unwrap();
        assert_eq!(told.number, 9);
        let request = ListPoliciesRequest {
            filter: "key = GOLD_COMPETENCIES".to_owned(),
            order_by: "effective_time".to_owned(),
            ..ListPoliciesRequest::default()
        };
        let all = operator.policies().list_policies(request).await.unwrap();
        let all = all.into_inner().policies;
        assert_eq!(all.len(), 4);
        assert_eq!(all[0], first);

        for (key, value, from, field) in [
            (review, Value::Number(1), None, "policy.number"),
            (gold, Value::Flag(true), None, "policy.flag"),
            (gold, Value::Number(0), None, "policy.number"),
            (gold, Value::Number(101), None, "policy.number"),
            (gold, Value::Number(2), Some(start), "policy.effective_time"),
        ] {
            let tried = set(&operator, key, value, from).await;
            let status = refused(tried, Code::InvalidArgument, "INVALID_FIELDS");
            assert_eq!(fields(&status), [field]);
        }
        let rae = staff(&site, "rae", OperatorRole::OperatorReviewer).await;
        let ann = site.tenant("contoso").await.admin.caller;
        for caller in [&rae.caller, &ann] {
            denied(set(caller, review, Value::Flag(true), None).await);
            denied(get(caller, review).await);
        }
    })
    .await;
}
