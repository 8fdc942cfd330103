//! What an account tells of its company (ACC-1): read and written as a whole, and held against what the rules demand of it.

use serde::{Deserialize, Serialize};

use super::{postal_code, publisher_name};
use crate::{
    check::Violations,
    proto::account::{Account, Contact, PostalAddress, SellerContact},
};

/// A person to turn to, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Person {
    pub display_name: String,
    pub email: String,
    pub phone_number: String,
}

/// A postal address, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Address {
    pub region_code: String,
    pub postal_code: String,
    pub administrative_area: String,
    pub locality: String,
    pub address_lines: Vec<String>,
}

/// The seller contact, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seller {
    pub contact: Option<Person>,
    pub address: Option<Address>,
}

/// Addresses and contacts of an account: what its column `profile` holds, in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    pub address: Option<Address>,
    pub primary_contact: Option<Person>,
    pub seller_contact: Option<Seller>,
    pub company_approver: Option<Person>,
}

/// Adds what is wrong with the parts of an account that are set: a contact or an address that is there is whole. `field` is that of the
/// account.
pub fn check(account: &Account, field: &str, v: &mut Violations) {
    check_form(account, field, v);
    for part in lacking_parts(account) {
        v.also(format!("{field}.{part}"), "is required");
    }
}

/// Adds what is wrong with what is there, and not what lacks.
pub fn check_form(account: &Account, field: &str, v: &mut Violations) {
    let name = &account.publisher_display_name;
    if !name.is_empty() && publisher_name::misleads(name) {
        v.also(
            format!("{field}.publisher_display_name"),
            publisher_name::MISLEADS,
        );
    }
    for (path, address) in addresses(account) {
        let (region, code) = (&address.region_code, &address.postal_code);
        if !region.is_empty() && !code.is_empty() && !postal_code::is_good(region, code) {
            let text = format!("is no postal code of {region}");
            v.also(format!("{field}.{path}.postal_code"), text);
        }
    }
}

/// The addresses that are there, with their paths.
fn addresses(account: &Account) -> impl Iterator<Item = (&'static str, &PostalAddress)> {
    let seller = account.seller_contact.as_ref();
    [
        ("address", account.address.as_ref()),
        (
            "seller_contact.address",
            seller.and_then(|s| s.address.as_ref()),
        ),
    ]
    .into_iter()
    .filter_map(|(path, address)| Some((path, address?)))
}

/// What the contacts and addresses that are there lack, as paths within the account.
fn lacking_parts(account: &Account) -> Vec<String> {
    let mut all = Vec::new();
    for (path, address) in addresses(account) {
        let region = &address.region_code;
        for (part, there) in [
            ("region_code", !region.is_empty()),
            ("locality", !address.locality.is_empty()),
            ("address_lines", !address.address_lines.is_empty()),
            (
                "postal_code",
                !address.postal_code.is_empty() || !postal_code::is_needed(region),
            ),
        ] {
            if !there {
                all.push(format!("{path}.{part}"));
            }
        }
    }
    let seller = account.seller_contact.as_ref();
    for (path, contact) in [
        ("primary_contact", account.primary_contact.as_ref()),
        (
            "seller_contact.contact",
            seller.and_then(|s| s.contact.as_ref()),
        ),
        ("company_approver", account.company_approver.as_ref()),
    ] {
        for part in super::wire::missing_of_contact(contact) {
            all.push(format!("{path}.{part}"));
        }
    }
    all
}

/// Adds that the legal address lies in another country than the account.
pub fn check_country(account: &Account, field: &str, v: &mut Violations) {
    if let Some(address) = &account.address
        && !account.country_code.is_empty()
        && !address.region_code.is_empty()
        && address.region_code != account.country_code
    {
        v.also(
            format!("{field}.address.region_code"),
            "is not the account's country",
        );
    }
}

/// The fields that an account lacks before it can be submitted, as paths within it: what isn't there at all, then parts of what is.
pub fn missing(account: &Account) -> Vec<String> {
    let seller = account.seller_contact.as_ref();
    let whole = [
        ("legal_name", !account.legal_name.is_empty()),
        (
            "publisher_display_name",
            !account.publisher_display_name.is_empty(),
        ),
        ("address", account.address.is_some()),
        ("primary_contact", account.primary_contact.is_some()),
        (
            "seller_contact.contact",
            seller.is_some_and(|s| s.contact.is_some()),
        ),
        (
            "seller_contact.address",
            seller.is_some_and(|s| s.address.is_some()),
        ),
        ("company_approver", account.company_approver.is_some()),
    ]
    .into_iter()
    .filter(|(_, there)| !there)
    .map(|(path, _)| path.to_owned());
    whole.chain(lacking_parts(account)).collect()
}

impl From<Contact> for Person {
    fn from(contact: Contact) -> Self {
        let Contact {
            display_name,
            email,
            phone_number,
        } = contact;
        Self {
            display_name,
            email,
            phone_number,
        }
    }
}

impl From<Person> for Contact {
    fn from(person: Person) -> Self {
        let Person {
            display_name,
            email,
            phone_number,
        } = person;
        Self {
            display_name,
            email,
            phone_number,
        }
    }
}

impl From<PostalAddress> for Address {
    fn from(address: PostalAddress) -> Self {
        let PostalAddress {
            region_code,
            postal_code,
            administrative_area,
            locality,
            address_lines,
        } = address;
        Self {
            region_code,
            postal_code,
            administrative_area,
            locality,
            address_lines,
        }
    }
}

impl From<Address> for PostalAddress {
    fn from(address: Address) -> Self {
        let Address {
            region_code,
            postal_code,
            administrative_area,
            locality,
            address_lines,
        } = address;
        Self {
            region_code,
            postal_code,
            administrative_area,
            locality,
            address_lines,
        }
    }
}

impl From<SellerContact> for Seller {
    fn from(seller: SellerContact) -> Self {
        let SellerContact { contact, address } = seller;
        Self {
            contact: contact.map(Into::into),
            address: address.map(Into::into),
        }
    }
}

impl From<Seller> for SellerContact {
    fn from(seller: Seller) -> Self {
        let Seller { contact, address } = seller;
        Self {
            contact: contact.map(Into::into),
            address: address.map(Into::into),
        }
    }
}

impl Profile {
    /// What a request says.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        Self {
            address: account.address.clone().map(Into::into),
            primary_contact: account.primary_contact.clone().map(Into::into),
            seller_contact: account.seller_contact.clone().map(Into::into),
            company_approver: account.company_approver.clone().map(Into::into),
        }
    }

    /// As stored.
    #[must_use]
    pub fn to_stored(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// What `to_stored` gave.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// The address of an account's primary contact, if it has one.
///
/// # Errors
/// Those of the database.
pub(crate) async fn contact_address(
    tx: &crate::app::Tx,
    account: uuid::Uuid,
) -> crate::error::Result<Option<String>> {
    use sea_orm::EntityTrait as _;
    let row = super::entity::account::Entity::find_by_id(account)
        .one(tx.db())
        .await?;
    Ok(row
        .and_then(|row| Profile::from_stored(&row.profile).primary_contact)
        .map(|contact| contact.email)
        .filter(|email| !email.is_empty()))
}
