//! The tests of the whole: the production stack, layers included, on both databases. Only `env` and the database differ.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on fails by panicking"
)]

mod access;
mod agreements;
mod api_style;
mod applications;
mod associations;
mod attack_names;
mod attack_verbs;
mod attacks;
mod audit;
mod bad_input;
mod benefits;
mod brought;
mod checks;
mod claims;
mod cost;
mod cut;
mod dns;
mod documents;
mod domains;
mod draining;
mod dynamic;
mod enrolment;
mod events;
mod examples;
mod faults;
mod fresh;
mod groups;
mod guests;
mod half_done;
mod harness;
mod identities;
mod invitations;
mod killed;
mod lanes;
mod late;
mod mails;
mod members;
mod model;
mod name_claims;
mod network;
mod offers;
mod operations;
mod outages;
mod ownership;
mod pages;
mod people;
mod policies;
mod processes;
mod programs;
mod races;
mod recovery;
mod recovery_cases;
mod refusals;
mod replicas;
mod resets;
mod reviews;
mod rights;
mod rules;
mod schedule;
mod secrets;
mod server_limits;
mod sessions;
mod sign_in;
mod staff;
mod story;
mod synchronization;
mod tenant_deletion;
mod tenants;
mod tour;
mod user_states;
mod users;
