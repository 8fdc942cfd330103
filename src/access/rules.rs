//! The access rule of every method, read from the protos once (0.3 ms for all). A method without one stops the start.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use prost_reflect::Value;

use super::{
    account_state::Demanded,
    roles::{LENDABLE, Permission},
};
use crate::{
    error::{Error, Result},
    proto::{
        POOL,
        access::{CallKind, Idempotency, LinkKind, MethodRule, View},
    },
};

/// A pair of the rule: a permission, and where it is checked.
#[derive(Debug)]
pub struct Pair {
    /// The permission.
    pub permission: Permission,
    /// The field that names the place; `@operator` for the operator.
    pub at: &'static str,
    /// Demanded only if this field is set; empty for always.
    pub when_set: &'static str,
}

/// What an alternative demands.
#[derive(Debug)]
pub enum Demand {
    /// Nothing.
    Public,
    /// A good token.
    SignedIn,
    /// That the field names the caller; `@caller` for calls that are about the caller by their nature.
    Oneself(&'static str),
    /// All these permissions.
    All(Vec<Pair>),
    /// The token of a mailed link of this kind, in this field.
    Token(LinkKind, &'static str),
}

/// One way to be allowed.
#[derive(Debug)]
pub struct Alternative {
    /// What it demands.
    pub demand: Demand,
    /// The field that names the relationship which must lend what is demanded; empty for what the caller holds itself.
    pub lent_by: &'static str,
    /// The answer is masked.
    pub masked: bool,
}

/// A method's rule.
#[derive(Debug)]
pub struct Rule {
    /// `entente.directory.v1.UserService/CreateUser`.
    pub method: &'static str,
    /// As declared, with what is not parsed further.
    pub declared: MethodRule,
    /// How it is carried out.
    pub kind: CallKind,
    /// In order; the first that holds is proven.
    pub any_of: Vec<Alternative>,
    /// Fields whose names must lie in the same tenant or account as another field's: (field, of).
    pub within: Vec<(&'static str, &'static str)>,
    /// What it demands of the accounts that are proven.
    pub account: Option<Demanded>,
}

impl Rule {
    /// Whether anybody may call it.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.any_of
            .iter()
            .any(|a| matches!(a.demand, Demand::Public))
    }

    /// Whether it needs nobody to be signed in: public, or opened by a mailed token.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_public() || self.token().is_some()
    }

    /// Whether the `authorization` header is ignored: nothing of the rule asks for a principal.
    #[must_use]
    pub fn ignores_caller(&self) -> bool {
        !self.declared.caller_optional
            && self
                .any_of
                .iter()
                .all(|a| matches!(a.demand, Demand::Public | Demand::Token(..)))
    }

    /// The kind of mailed token that opens it, and the field that carries it.
    #[must_use]
    pub fn token(&self) -> Option<(LinkKind, &'static str)> {
        self.any_of.iter().find_map(|a| match a.demand {
            Demand::Token(kind, field) => Some((kind, field)),
            _ => None,
        })
    }

    /// Whether one of the alternatives demands something of the operator's staff.
    #[must_use]
    pub fn demands_on_operator(&self) -> bool {
        let is_operators = |pair: &Pair| pair.at == "@operator";
        self.any_of.iter().any(|a| match &a.demand {
            Demand::All(pairs) => pairs.iter().any(is_operators),
            _ => false,
        })
    }

    /// Whether nothing but a mailed token opens it.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        self.any_of
            .iter()
            .all(|a| matches!(a.demand, Demand::Token(..)))
    }

    /// The field whose value stands for the caller where repetitions are recognised; empty if the principal does.
    #[must_use]
    pub fn claimed_by(&self) -> &str {
        match self.token() {
            Some((_, field)) => field,
            None => &self.declared.claimed_by,
        }
    }

    /// Whether repetitions are recognised.
    #[must_use]
    pub fn claims(&self) -> bool {
        matches!(
            self.kind,
            CallKind::Mutation | CallKind::StreamIn | CallKind::Upload
        ) && self.declared.idempotency() != Idempotency::None
    }
}

static RULES: LazyLock<std::result::Result<HashMap<String, Rule>, String>> = LazyLock::new(read);

/// The rule of a path such as `/entente.directory.v1.UserService/CreateUser`; None if there is no such method.
#[must_use]
pub fn of_path(path: &str) -> Option<&'static Rule> {
    RULES.as_ref().ok()?.get(path)
}

/// All rules, in no order; none while one is faulty.
pub fn every() -> impl Iterator<Item = &'static Rule> {
    RULES.as_ref().ok().into_iter().flat_map(HashMap::values)
}

/// All rules by path, for tests and documents.
///
/// # Errors
/// Internal, naming every method that lacks its declaration.
pub fn all() -> Result<BTreeMap<&'static str, &'static Rule>> {
    match RULES.as_ref() {
        Ok(rules) => Ok(rules
            .iter()
            .map(|(path, rule)| (path.as_str(), rule))
            .collect()),
        Err(faults) => Err(Error::internal(faults.clone())),
    }
}

fn read() -> std::result::Result<HashMap<String, Rule>, String> {
    let mut rules = HashMap::new();
    let mut faults = Vec::new();
    let Some(extension) = POOL.get_extension_by_name("entente.access.v1.rule") else {
        return Err("the protos declare no rule extension".to_owned());
    };
    for service in POOL
        .services()
        .filter(|s| s.full_name().starts_with("entente."))
    {
        for method in service.methods() {
            let name = format!("{}/{}", service.full_name(), method.name());
            let options = method.options();
            let declared = options
                .has_extension(&extension)
                .then(|| options.get_extension(&extension).into_owned());
            match declared.map(parse_declared) {
                Some(Some(declared)) => match parse(name.clone(), declared) {
                    Ok(rule) => {
                        rules.insert(format!("/{name}"), rule);
                    }
                    Err(fault) => faults.push(fault),
                },
                _ => faults.push(format!("{name} has no access rule")),
            }
        }
    }
    if faults.is_empty() {
        Ok(rules)
    } else {
        Err(faults.join("; "))
    }
}

fn parse_declared(value: Value) -> Option<MethodRule> {
    value.as_message()?.transcode_to::<MethodRule>().ok()
}

fn parse(name: String, declared: MethodRule) -> std::result::Result<Rule, String> {
    // Rules live as long as the process.
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    let mut any_of = Vec::new();
    for alternative in &declared.any_of {
        let demand = if let Some(token) = &alternative.token {
            Demand::Token(token.kind(), leak(&token.field))
        } else if alternative.public {
            Demand::Public
        } else if alternative.signed_in {
            Demand::SignedIn
        } else if !alternative.self_.is_empty() {
            Demand::Oneself(leak(&alternative.self_))
        } else {
            let mut pairs = Vec::new();
            for pair in &alternative.all_of {
                let permission = Permission::parse(&pair.permission).ok_or_else(|| {
                    format!("{name} demands {}, which is no permission", pair.permission)
                })?;
                pairs.push(Pair {
                    permission,
                    at: leak(&pair.at),
                    when_set: leak(&pair.when_set),
                });
            }
            if pairs.is_empty() {
                return Err(format!("{name} has an alternative that demands nothing"));
            }
            // Nobody would be proven to be lent anything.
            if !alternative.lent_by.is_empty() && pairs.iter().all(|p| !p.when_set.is_empty()) {
                return Err(format!(
                    "{name} has a lent alternative that may demand nothing"
                ));
            }
            if !alternative.lent_by.is_empty()
                && let Some(pair) = pairs.iter().find(|p| !LENDABLE.has(p.permission))
            {
                let permission = pair.permission.name();
                return Err(format!("{name} demands {permission}, which nobody lends"));
            }
            Demand::All(pairs)
        };
        any_of.push(Alternative {
            demand,
            lent_by: leak(&alternative.lent_by),
            masked: alternative.view() == View::Masked,
        });
    }
    if any_of.is_empty() || declared.kind() == CallKind::Unspecified {
        return Err(format!("{name} has an incomplete access rule"));
    }
    let within = declared
        .unprivileged
        .iter()
        .filter(|u| !u.within.is_empty())
        .map(|u| (leak(&u.field), leak(&u.within)))
        .collect();
    Ok(Rule {
        method: leak(&name),
        kind: declared.kind(),
        any_of,
        within,
        account: declared.account.as_ref().map(Demanded::of),
        declared,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::access::{Alternative as Declared, Pair as DeclaredPair};

    fn rule(method: &str) -> &'static Rule {
        of_path(&format!("/entente.{method}")).unwrap()
    }

    // proves COM-1
    #[test]
    fn a_rule_says_of_whom_and_where_it_demands_something() {
        // Open to nobody, ignores who calls, opened by a mailed token alone, demands something on the operator.
        for (method, told) in [
            ("directory.v1.SessionService/SignIn", "yynn"),
            (
                "directory.v1.SessionService/CompletePasswordRecovery",
                "yyyn",
            ),
            ("directory.v1.InvitationService/AcceptInvitation", "ynyn"),
            ("directory.v1.TenantService/UndeleteTenant", "ynny"),
            ("directory.v1.TenantService/CreateTenant", "nnny"),
            ("directory.v1.SessionService/WhoAmI", "nnnn"),
            ("directory.v1.UserService/CreateUser", "nnnn"),
        ] {
            let rule = rule(method);
            let found: String = [
                rule.is_open(),
                rule.ignores_caller(),
                rule.needs_token(),
                rule.demands_on_operator(),
            ]
            .map(|is| if is { 'y' } else { 'n' })
            .into_iter()
            .collect();
            assert_eq!(found, told, "{method}");
        }
    }

    // proves COM-4
    #[test]
    fn a_rule_says_whose_repetitions_are_recognised() {
        for (method, claims, by) in [
            ("directory.v1.UserService/CreateUser", true, ""),
            ("directory.v1.IdentityService/SignUp", true, "email"),
            (
                "directory.v1.SessionService/CompletePasswordRecovery",
                true,
                "token",
            ),
            ("directory.v1.SessionService/SignIn", false, ""),
            ("directory.v1.UserService/ListUsers", false, ""),
        ] {
            let rule = rule(method);
            assert_eq!((rule.claims(), rule.claimed_by()), (claims, by), "{method}");
        }
    }

    #[test]
    fn all_rules_are_told_by_their_paths() {
        let all = all().unwrap();
        assert!(all.len() > 100);
        assert_eq!(all.len(), every().count());
        for (path, rule) in all {
            assert_eq!(path.strip_prefix('/'), Some(rule.method));
        }
    }

    // proves COM-1
    #[test]
    fn a_rule_that_demands_nothing_or_lacks_its_kind_is_none() {
        let pair = |permission: &str| Declared {
            all_of: vec![DeclaredPair {
                permission: permission.to_owned(),
                at: "name".to_owned(),
                when_set: String::new(),
            }],
            ..Declared::default()
        };
        let good = |kind: CallKind, any_of: Vec<Declared>| {
            let declared = MethodRule {
                kind: kind as i32,
                any_of,
                ..MethodRule::default()
            };
            parse("entente.test.v1.Test/Test".to_owned(), declared).is_ok()
        };
        assert!(good(CallKind::Read, vec![pair("users.read")]));
        assert!(!good(CallKind::Unspecified, vec![pair("users.read")]));
        assert!(!good(CallKind::Read, Vec::new()));
        assert!(!good(CallKind::Read, vec![Declared::default()]));
        assert!(!good(CallKind::Read, vec![pair("no.such")]));
        let lent = |permission: &str| Declared {
            lent_by: "relationship".to_owned(),
            ..pair(permission)
        };
        assert!(good(CallKind::Read, vec![lent("users.read")]));
        assert!(!good(CallKind::Read, vec![lent("audit.read")]));
    }
}
