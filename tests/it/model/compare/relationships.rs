//! What both sides read of relationships, held against the model (REL-12, REL-14).

use std::collections::{BTreeMap, BTreeSet};

use entente::proto::relationship::{ListRelationshipAssignmentsRequest, ListRelationshipsRequest};

use super::super::{
    relationships::{Holder, account_role},
    state::Life,
    world::{World, directory_on_wire},
};
use crate::relationships::losses;

impl World<'_> {
    /// What an account's relationships lend, to whom it goes on, and what they made; as both sides read it (REL-12).
    pub async fn compare_relationships(&mut self, account: usize) {
        let of_account = |r: &usize| self.model.relationships[*r].account == account;
        let all: Vec<usize> = (0..self.relationship_names.len())
            .filter(of_account)
            .collect();
        for which in &all {
            self.compare_losses(*which).await;
        }
        let reader = (0..self.doors.len()).find(|p| {
            let may = self.model.on_account(&self.table, *p, account);
            self.model.signs_in(*p) && may.contains("relationships.read")
        });
        let Some(reader) = reader else {
            return;
        };
        let caller = self.caller(reader).await.unwrap();
        let mut relationships = caller.relationships();
        let request = ListRelationshipsRequest {
            parent: self.account_names[account].clone(),
            page_size: 1_000,
            ..ListRelationshipsRequest::default()
        };
        let page = relationships.list_relationships(request).await.unwrap();
        let told: BTreeMap<String, (i32, String, Vec<i32>)> = page
            .into_inner()
            .relationships
            .into_iter()
            .map(|r| (r.name, (r.state, r.customer, r.granted_roles)))
            .collect();
        let expected = all.iter().map(|which| {
            let r = &self.model.relationships[*which];
            let customer = r.customer.map(|t| self.tenant_names[t].clone());
            let roles = directory_on_wire(&r.roles);
            let told = (r.state as i32, customer.unwrap_or_default(), sorted(roles));
            (self.relationship_names[*which].clone(), told)
        });
        self.agree("relationships", &told, &expected.collect());
        let active = |r: &&usize| self.model.relationships[**r].is_active();
        for which in all.iter().filter(active) {
            let request = ListRelationshipAssignmentsRequest {
                name: self.relationship_names[*which].clone(),
            };
            let all = relationships.list_relationship_assignments(request).await;
            let told: BTreeSet<(i32, String, Vec<i32>)> = all
                .unwrap()
                .into_inner()
                .assignments
                .into_iter()
                .map(|a| (a.account_role, a.group, a.directory_roles))
                .collect();
            let assigned = &self.model.relationships[*which].assigned;
            let expected = assigned.iter().map(|(holder, roles)| {
                let (role, group) = match holder {
                    Holder::Role(role) => (account_role(role), String::new()),
                    Holder::Group(group) => (0, self.name(*group)),
                };
                (role, group, sorted(directory_on_wire(roles)))
            });
            self.agree("assignments", &told, &expected.collect());
        }
    }

    /// Whom it made, and whose password it showed, as the customer is told (REL-14).
    async fn compare_losses(&mut self, which: usize) {
        let Some(tenant) = self.model.relationships[which].customer else {
            return;
        };
        let Some(admin) = self.model.admins(tenant).first().copied() else {
            return;
        };
        let caller = self.caller(admin).await.unwrap();
        let name = &self.relationship_names[which];
        let told = losses(&caller, &self.tenant_names[tenant], name).await;
        let told: BTreeSet<String> = told.unwrap().made_users.into_iter().collect();
        let is_its = |p: &usize| {
            let p = &self.model.principals[*p];
            let by = [p.made_by, p.shown_by].contains(&Some(which));
            by && p.life != Life::Deleted
        };
        let made = (0..self.doors.len()).filter(is_its);
        let expected = made.map(|p| self.name(p)).collect();
        self.agree(&format!("made by {which}"), &told, &expected);
    }
}

fn sorted(mut numbers: Vec<i32>) -> Vec<i32> {
    numbers.sort_unstable();
    numbers
}
