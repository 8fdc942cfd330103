//! Entente: the partner account centre of a partner programme or a marketplace, as one gRPC service.
//!
//! The map, from the ground up; an import never points upwards:
//! `proto`, `config`, `env`, `keys`, `hash`, `dns` · `blob` · `error`, `names`, `check` · `store` · `access` (on `app`'s transactions) · `app`, `call`,
//! `mail`, `document`, `policy` · `directory` · `account` · `offer`, `relationship` · `audit`, `operator` · `schedule`, `start`, `server` · `main`.

pub mod access;
pub mod account;
pub mod app;
pub mod audit;
pub mod blob;
pub mod bootstrap;
pub mod call;
pub mod check;
pub mod config;
pub mod directory;
pub mod dns;
pub mod document;
pub mod env;
pub mod error;
pub mod hash;
pub mod keys;
pub mod mail;
pub mod names;
pub mod offer;
pub mod operator;
pub mod policy;
pub mod proto;
pub mod registry;
pub mod relationship;
pub mod schedule;
pub mod server;
pub mod start;
pub mod store;
