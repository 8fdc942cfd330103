//! Proto ⇄ rows of benefits; nothing else of these converts.

use super::{holding::Given, package::Content, purchase::state_of};
use crate::{
    account::entity::{benefit, benefit_assignment, competency, package, package_offer},
    env::Micros,
    names::Name,
    proto::account::{Benefit, BenefitAssignment, Competency, Package, PackageOffer},
    store::{time::timestamp, update::etag},
};

pub fn competency(row: &competency::Model) -> Competency {
    let competency::Model {
        id,
        account_id,
        code,
        expire_time,
        create_time,
        version,
    } = row;
    Competency {
        name: Name::Competency(*account_id, *id).to_string(),
        code: code.clone(),
        expire_time: timestamp(*expire_time),
        create_time: timestamp(*create_time),
        etag: etag(*version),
    }
}

pub fn package_offer(row: &package_offer::Model) -> PackageOffer {
    let package_offer::Model {
        id,
        display_name,
        display_name_fold: _,
        currency_code,
        amount_minor,
        term_days,
        contents,
        withdrawn,
        create_time,
        update_time,
        version,
    } = row;
    PackageOffer {
        name: Name::PackageOffer(*id).to_string(),
        display_name: display_name.clone(),
        currency_code: currency_code.clone(),
        amount_minor: *amount_minor,
        term_days: i32::try_from(*term_days).unwrap_or(0),
        contents: contents.0.iter().map(Content::to_wire).collect(),
        withdrawn: *withdrawn,
        create_time: timestamp(*create_time),
        update_time: timestamp(*update_time),
        etag: etag(*version),
    }
}

pub fn package(row: &package::Model, now: Micros) -> Package {
    let package::Model {
        id,
        account_id,
        package_offer_id,
        display_name,
        currency_code,
        amount_minor,
        charge_id,
        begin_time,
        expire_time,
        create_time,
        version,
    } = row;
    Package {
        name: Name::Package(*account_id, *id).to_string(),
        package_offer: Name::PackageOffer(*package_offer_id).to_string(),
        display_name: display_name.clone(),
        state: state_of(row, now) as i32,
        charge_id: charge_id.map_or_else(String::new, |id| id.to_string()),
        currency_code: currency_code.clone(),
        amount_minor: *amount_minor,
        begin_time: begin_time.and_then(timestamp),
        expire_time: expire_time.and_then(timestamp),
        create_time: timestamp(*create_time),
        etag: etag(*version),
    }
}

pub fn benefit(row: &benefit::Model, given: Given) -> Benefit {
    let benefit::Model {
        id,
        account_id,
        package_id,
        kind,
        display_name,
        display_name_fold: _,
        total: _,
        used,
        activate_time,
        create_time,
        version,
    } = row;
    Benefit {
        name: Name::Benefit(*account_id, *id).to_string(),
        kind: i32::try_from(*kind).unwrap_or(0),
        display_name: display_name.clone(),
        package: package_id
            .map_or_else(String::new, |id| Name::Package(*account_id, id).to_string()),
        total_count: given.total,
        used_count: *used,
        active: given.is_given && activate_time.is_some(),
        activate_time: activate_time.and_then(timestamp),
        expire_time: given.expire_time.and_then(timestamp),
        create_time: timestamp(*create_time),
        etag: etag(*version),
    }
}

pub fn assignment(row: &benefit_assignment::Model) -> BenefitAssignment {
    let benefit_assignment::Model {
        id,
        account_id,
        benefit_id,
        member_id,
        count,
        create_time,
    } = row;
    BenefitAssignment {
        name: Name::BenefitAssignment(*account_id, *benefit_id, *id).to_string(),
        assignee: member_id
            .map_or_else(String::new, |id| Name::Member(*account_id, id).to_string()),
        count: *count,
        create_time: timestamp(*create_time),
    }
}
