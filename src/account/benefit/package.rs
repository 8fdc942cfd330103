//! BenefitService, the operator's side of packages: what can be bought (BEN-2).

use sea_orm::{ActiveModelTrait, ConnectionTrait, EntityTrait, IntoActiveModel};
use serde::{Deserialize, Serialize};

use super::wire;
use crate::{
    access::scope::{OperatorScope, Proof},
    account::entity::package_offer::{Entity, Model},
    app::{Read, Tx},
    check::{MOST_ITEMS_NAMED, Violations},
    error::{Error, Result},
    names::Name,
    proto::account::{
        CreatePackageOfferRequest, ListPackageOffersRequest, ListPackageOffersResponse,
        PackageContent, PackageOffer, UpdatePackageOfferRequest,
    },
    store::{
        filter::{Field, Kind, OrderField},
        json::Json,
        list::{Listing, fold},
        outbox::Event,
        update,
    },
};

const LISTING: Listing = Listing {
    fields: &[
        Field::new("withdrawn", ("package_offers", "withdrawn"), Kind::Bool),
        Field::new("create_time", ("package_offers", "create_time"), Kind::TIME),
    ],
    orders: &[
        OrderField::new("create_time", ("package_offers", "create_time")),
        OrderField::new("display_name", ("package_offers", "display_name_fold")),
    ],
    id: ("package_offers", "id"),
};

/// Some of a package's contents, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// A number of `BenefitKind`.
    pub kind: i32,
    /// What people call it.
    pub display_name: String,
    /// How many there are.
    pub count: i64,
}

impl Content {
    /// What a request says.
    pub fn of(content: &PackageContent) -> Self {
        Self {
            kind: content.kind,
            display_name: content.display_name.clone(),
            count: content.count,
        }
    }

    /// For the wire.
    #[must_use]
    pub fn to_wire(&self) -> PackageContent {
        PackageContent {
            kind: self.kind,
            display_name: self.display_name.clone(),
            count: self.count,
        }
    }
}

/// Contents as they are stored.
fn to_stored(contents: &[PackageContent]) -> Json<Vec<Content>> {
    Json(contents.iter().map(Content::of).collect())
}

fn check(offer: &PackageOffer, v: &mut Violations) {
    let contents = || offer.contents.iter().enumerate().take(MOST_ITEMS_NAMED);
    for (i, content) in contents() {
        let is_same = |other: &PackageContent| {
            other.kind == content.kind && other.display_name == content.display_name
        };
        if contents()
            .take(i)
            .take(MOST_ITEMS_NAMED)
            .any(|(_, c)| is_same(c))
        {
            v.also(
                format!("package_offer.contents[{i}]"),
                "has the kind and name of another one",
            );
        }
    }
}

pub(crate) fn check_create_package_offer(req: &CreatePackageOfferRequest, v: &mut Violations) {
    if let Some(new) = &req.package_offer {
        check(new, v);
        for (field, there) in [
            ("amount_minor", new.amount_minor != 0),
            ("term_days", new.term_days != 0),
        ] {
            if !there {
                v.also(format!("package_offer.{field}"), "is required");
            }
        }
    }
}

/// Makes a package offer.
///
/// # Errors
/// Those of the database.
pub async fn create_package_offer(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: CreatePackageOfferRequest,
) -> Result<PackageOffer> {
    let new = req.package_offer.unwrap_or_default();
    let row = Model {
        id: tx.id(),
        display_name_fold: fold(&new.display_name),
        display_name: new.display_name,
        currency_code: new.currency_code,
        amount_minor: new.amount_minor,
        term_days: i64::from(new.term_days),
        contents: to_stored(&new.contents),
        withdrawn: new.withdrawn,
        create_time: tx.now(),
        update_time: tx.now(),
        version: 1,
    };
    tx.insert(row.clone()).await?;
    let shown = wire::package_offer(&row);
    let event = Event::new(
        "entente.account.v1.PackageOfferCreated",
        Name::PackageOffer(row.id),
    );
    tx.emit(changes(event, None, &shown));
    Ok(shown)
}

pub(crate) fn check_update_package_offer(req: &UpdatePackageOfferRequest, v: &mut Violations) {
    if let Some(new) = &req.package_offer {
        check(new, v);
    }
}

/// Changes a package offer.
///
/// # Errors
/// `NOT_FOUND`, `ETAG_MISMATCH`.
pub async fn update_package_offer(
    tx: &mut Tx,
    _scope: OperatorScope,
    req: UpdatePackageOfferRequest,
) -> Result<PackageOffer> {
    let new = req.package_offer.unwrap_or_default();
    let old = find(tx.db(), &new.name).await?;
    update::check_etag(&req.etag, old.version)?;
    let mut row = old.clone();
    for field in update::fields(req.update_mask.as_ref(), &new) {
        match field {
            "display_name" => {
                row.display_name.clone_from(&new.display_name);
                row.display_name_fold = fold(&new.display_name);
            }
            "currency_code" => row.currency_code.clone_from(&new.currency_code),
            "amount_minor" => row.amount_minor = new.amount_minor,
            "term_days" => row.term_days = i64::from(new.term_days),
            "contents" => row.contents = to_stored(&new.contents),
            "withdrawn" => row.withdrawn = new.withdrawn,
            other => {
                return Err(Error::internal(format!(
                    "{other} is mutable, but nobody changes it"
                )));
            }
        }
    }
    row.update_time = tx.now();
    row.version += 1;
    let all = row.clone().into_active_model().reset_all();
    all.update(tx.db()).await?;
    let shown = wire::package_offer(&row);
    let event = Event::new(
        "entente.account.v1.PackageOfferUpdated",
        Name::PackageOffer(row.id),
    );
    tx.emit(changes(event, Some(&wire::package_offer(&old)), &shown));
    Ok(shown)
}

/// Adds what differs between two states of a package offer.
fn changes(mut event: Event, before: Option<&PackageOffer>, after: &PackageOffer) -> Event {
    let of = |offer: &PackageOffer| {
        let contents = offer.contents.iter().map(|c| {
            serde_json::json!({"kind": c.kind, "display_name": c.display_name, "count": c.count.to_string()})
        });
        [
            ("display_name", offer.display_name.clone().into()),
            ("currency_code", offer.currency_code.clone().into()),
            // 64-bit numbers are texts in proto3's JSON.
            ("amount_minor", offer.amount_minor.to_string().into()),
            ("term_days", offer.term_days.into()),
            ("contents", contents.collect::<Vec<_>>().into()),
            ("withdrawn", serde_json::Value::from(offer.withdrawn)),
        ]
    };
    let was = before.map(of);
    for (i, (field, is)) in of(after).into_iter().enumerate() {
        let was = was.as_ref().and_then(|all| all.get(i));
        let was = was.map_or(serde_json::Value::Null, |(_, value)| value.clone());
        event = event.change(field, was, is);
    }
    event
}

/// A package offer by its name.
pub(super) async fn find<C: ConnectionTrait>(db: &C, name: &str) -> Result<Model> {
    let missing = || Error::not_found("entente.dev/PackageOffer", name);
    let Some(Name::PackageOffer(id)) = Name::parse(name) else {
        return Err(missing());
    };
    Entity::find_by_id(id).one(db).await?.ok_or_else(missing)
}

pub(crate) fn check_list_package_offers(req: &ListPackageOffersRequest, v: &mut Violations) {
    LISTING.check(req, v);
}

/// Lists package offers.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_package_offers(
    rd: &Read,
    _proof: Proof,
    req: ListPackageOffersRequest,
) -> Result<ListPackageOffersResponse> {
    let page = rd
        .list(&req, &LISTING, Entity::find(), |row: Model| {
            wire::package_offer(&row)
        })
        .await?;
    Ok(ListPackageOffersResponse {
        package_offers: page.items,
        next_page_token: page.next_page_token,
    })
}
