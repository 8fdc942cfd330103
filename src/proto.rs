//! Generated messages and clients, and the descriptors that the rules of access are read from.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

#[expect(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated from the protos, which carry the comments"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));
}

pub use generated::{entente, google};

pub use entente::{
    access::v1 as access, account::v1 as account, audit::v1 as audit, directory::v1 as directory,
    offer::v1 as offer, operator::v1 as operator, relationship::v1 as relationship,
};

/// As proto3's JSON, for events.
impl From<access::Rights> for serde_json::Value {
    fn from(rights: access::Rights) -> Self {
        let access::Rights { roles, permissions } = rights;
        serde_json::json!({ "roles": roles, "permissions": permissions })
    }
}

/// All files with their options, as raw bytes: what reflection serves and what the rules are read from.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/entente.bin"));

/// The descriptors, with our options readable.
pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    #[expect(
        clippy::expect_used,
        reason = "the build wrote these bytes and read them back"
    )]
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptor set is well-formed")
});
