//! The tests of the whole: the production stack, layers included, on both databases. Only `env` and the database differ.

mod access;
mod api_style;
mod applications;
mod associations;
mod attacks;
mod audit;
mod bad_input;
mod claims;
mod dynamic;
mod events;
mod faults;
mod harness;
mod mails;
mod members;
mod model;
mod pages;
mod processes;
mod rights;
mod rules;
mod schedule;
mod sessions;
mod staff;
mod tenants;
mod tour;
mod users;
