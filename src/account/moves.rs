//! What a membership of an older programme brings to its account besides a profile: a level, competencies and packages (NET-2). Stored as a
//! whole, once as imported and once as chosen; what is chosen is never more than what was imported.

use std::collections::BTreeMap;

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{benefit::Content, entity::package_offer};
use crate::{
    check::{MOST_ITEMS_NAMED, Violations},
    env::Micros,
    error::{Error, Result},
    names::Name,
    proto::account::{BroughtCompetency, BroughtMembership, BroughtPackage, Level, PackageContent},
    store::time::{json, micros, timestamp},
};

/// What moves, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Moves {
    /// A number of `Level`; 0 for none.
    pub level: i32,
    /// Until when the level counts.
    pub level_expire_time: Micros,
    pub competencies: Vec<MovedCompetency>,
    pub packages: Vec<MovedPackage>,
}

/// A competency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedCompetency {
    pub code: String,
    pub expire_time: Micros,
}

/// A package: that of an offer, with what the offer said when it was imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedPackage {
    pub package_offer: Uuid,
    pub display_name: String,
    pub currency_code: String,
    pub amount_minor: i64,
    pub begin_time: Micros,
    pub expire_time: Micros,
    /// What is left in it.
    pub contents: Vec<Content>,
}

/// Adds what is wrong with it as such; `field` is its own.
pub(super) fn check(brought: Option<&BroughtMembership>, field: &str, v: &mut Violations) {
    let Some(brought) = brought else { return };
    let has_level = brought.level() != Level::Unspecified;
    if has_level != brought.level_expire_time.is_some() {
        let (lacks, of) = if has_level {
            ("level_expire_time", "level")
        } else {
            ("level", "level_expire_time")
        };
        v.also(format!("{field}.{lacks}"), format!("is needed with {of}"));
    }
    let competencies = || brought.competencies.iter().take(MOST_ITEMS_NAMED);
    for (i, one) in competencies().enumerate() {
        if competencies().take(i).any(|other| other.code == one.code) {
            v.also(format!("{field}.competencies[{i}].code"), "is there twice");
        }
    }
    for (i, one) in brought.packages.iter().take(MOST_ITEMS_NAMED).enumerate() {
        let begin = one.begin_time.as_ref().map_or(0, micros);
        if one.expire_time.as_ref().is_some_and(|t| micros(t) <= begin) {
            let field = format!("{field}.packages[{i}].expire_time");
            v.also(field, "is not after begin_time");
        }
        let contents = || one.contents.iter().take(MOST_ITEMS_NAMED);
        for (j, content) in contents().enumerate() {
            let same = |c: &PackageContent| {
                c.kind == content.kind && c.display_name == content.display_name
            };
            if contents().take(j).any(same) {
                let field = format!("{field}.packages[{i}].contents[{j}]");
                v.also(field, "has the kind and name of another one");
            }
        }
    }
}

/// The package offers that requests name, by ID.
///
/// # Errors
/// Those of the database.
pub(super) async fn offers<C: ConnectionTrait>(
    db: &C,
    all: impl Iterator<Item = &BroughtPackage>,
) -> Result<BTreeMap<Uuid, package_offer::Model>> {
    let mut ids: Vec<Uuid> = all.filter_map(offer_id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = package_offer::Entity::find()
        .filter(package_offer::Column::Id.is_in(ids))
        .all(db)
        .await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

fn offer_id(package: &BroughtPackage) -> Option<Uuid> {
    match Name::parse(&package.package_offer) {
        Some(Name::PackageOffer(id)) => Some(id),
        _ => None,
    }
}

impl Moves {
    /// What an import says; adds the package offers that aren't there. `field` is that of what is brought.
    pub fn imported(
        brought: Option<&BroughtMembership>,
        offers: &BTreeMap<Uuid, package_offer::Model>,
        field: &str,
        v: &mut Violations,
    ) -> Self {
        let Some(brought) = brought else {
            return Self::default();
        };
        let mut packages = Vec::with_capacity(brought.packages.len());
        for (i, package) in brought.packages.iter().enumerate() {
            let Some(offer) = offer_id(package).and_then(|id| offers.get(&id)) else {
                let field = format!("{field}.packages[{i}].package_offer");
                v.also(field, "is no package offer");
                continue;
            };
            let contents = if package.contents.is_empty() {
                offer.contents.0.clone()
            } else {
                package.contents.iter().map(Content::of).collect()
            };
            packages.push(MovedPackage {
                package_offer: offer.id,
                display_name: offer.display_name.clone(),
                currency_code: offer.currency_code.clone(),
                amount_minor: offer.amount_minor,
                begin_time: package.begin_time.as_ref().map_or(0, micros),
                expire_time: package.expire_time.as_ref().map_or(0, micros),
                contents,
            });
        }
        Self {
            level: brought.level,
            level_expire_time: brought.level_expire_time.as_ref().map_or(0, micros),
            competencies: brought.competencies.iter().map(competency_of).collect(),
            packages,
        }
    }

    /// What a company chooses of what was imported; adds whatever is more than that. `field` is that of what is brought.
    pub fn chosen(&self, wanted: &BroughtMembership, field: &str, v: &mut Violations) -> Self {
        let more = "was not imported so; leave it out, or make it less";
        let level_expire_time = wanted.level_expire_time.as_ref().map_or(0, micros);
        for (part, is_more) in [
            ("level", wanted.level > self.level),
            (
                "level_expire_time",
                level_expire_time > self.level_expire_time,
            ),
        ] {
            if is_more {
                v.also(format!("{field}.{part}"), more);
            }
        }
        let competencies: Vec<MovedCompetency> =
            wanted.competencies.iter().map(competency_of).collect();
        for (i, one) in competencies.iter().enumerate().take(MOST_ITEMS_NAMED) {
            let is_less = |known: &MovedCompetency| {
                known.code == one.code && one.expire_time <= known.expire_time
            };
            if !self.competencies.iter().any(is_less) {
                v.also(format!("{field}.competencies[{i}]"), more);
            }
        }
        let mut left: Vec<&MovedPackage> = self.packages.iter().collect();
        let mut packages = Vec::new();
        for (i, one) in wanted.packages.iter().enumerate().take(MOST_ITEMS_NAMED) {
            let (begin, end) = (one.begin_time.as_ref(), one.expire_time.as_ref());
            let contents: Vec<Content> = one.contents.iter().map(Content::of).collect();
            // Each of those that were imported once.
            let at = left.iter().position(|known| {
                offer_id(one) == Some(known.package_offer)
                    && begin.map(micros) == Some(known.begin_time)
                    && end.map(micros) == Some(known.expire_time)
                    && (contents.is_empty() || contents == known.contents)
            });
            match at {
                Some(at) => packages.push(left.remove(at).clone()),
                None => v.also(format!("{field}.packages[{i}]"), more),
            }
        }
        Self {
            level: wanted.level,
            level_expire_time,
            competencies,
            packages,
        }
    }

    /// For the wire.
    pub fn to_wire(&self, old_id: &str, arrive_time: Option<Micros>) -> BroughtMembership {
        let competency = |c: &MovedCompetency| BroughtCompetency {
            code: c.code.clone(),
            expire_time: timestamp(c.expire_time),
        };
        let package = |p: &MovedPackage| BroughtPackage {
            package_offer: Name::PackageOffer(p.package_offer).to_string(),
            begin_time: timestamp(p.begin_time),
            expire_time: timestamp(p.expire_time),
            contents: p.contents.iter().map(Content::to_wire).collect(),
        };
        BroughtMembership {
            old_id: old_id.to_owned(),
            level: self.level,
            level_expire_time: (self.level != 0)
                .then(|| timestamp(self.level_expire_time))
                .flatten(),
            competencies: self.competencies.iter().map(competency).collect(),
            packages: self.packages.iter().map(package).collect(),
            arrive_time: arrive_time.and_then(timestamp),
        }
    }

    /// In proto3's JSON, for events.
    pub fn to_json(&self) -> serde_json::Value {
        let competencies = self.competencies.iter();
        let competencies = competencies
            .map(|c| serde_json::json!({ "code": c.code, "expire_time": json(c.expire_time) }));
        let packages = self.packages.iter().map(|p| {
            serde_json::json!({
                "package_offer": Name::PackageOffer(p.package_offer).to_string(),
                "begin_time": json(p.begin_time),
                "expire_time": json(p.expire_time),
            })
        });
        serde_json::json!({
            "level": self.level,
            "level_expire_time": json((self.level != 0).then_some(self.level_expire_time)),
            "competencies": competencies.collect::<Vec<_>>(),
            "packages": packages.collect::<Vec<_>>(),
        })
    }

    /// As stored.
    pub fn to_stored(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// What `to_stored` gave.
    ///
    /// # Errors
    /// Internal, if it is something else: nothing of a membership is taken for nothing.
    pub fn from_stored(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| Error::internal(format!("stored moves: {e}")))
    }
}

fn competency_of(of: &BroughtCompetency) -> MovedCompetency {
    MovedCompetency {
        code: of.code.clone(),
        expire_time: of.expire_time.as_ref().map_or(0, micros),
    }
}
