//! Who may give what they lack: the only exceptions to ROL-7, as data. The kernel looks them up; a test holds them against
//! `docs/rules/0-permissions.md`, and the model test reads them.

use super::roles::Permission;

/// An exception: the method, and the roles or single permissions that it gives although the caller may lack them.
#[derive(Debug)]
pub struct Exception {
    /// The RPC.
    pub method: &'static str,
    /// Roles and permissions given.
    pub gives: &'static [&'static str],
    /// What bounds it.
    pub bound: &'static str,
}

/// All that is built of the table.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        method: "CreateTenant",
        gives: &["GLOBAL_ADMIN"],
        bound: "a new tenant; the password is temporary",
    },
    Exception {
        method: "CreateAssociatedTenant",
        gives: &["GLOBAL_ADMIN"],
        bound: "a new tenant; the password is temporary",
    },
    Exception {
        method: "ImportAccount",
        gives: &["MANAGER", "ADMIN_AGENT", "OWNER"],
        bound: "a new account, and its owner if one is named",
    },
    Exception {
        method: "CreateAccount",
        gives: &["MANAGER", "ADMIN_AGENT", "GLOBAL_ADMIN", "OWNER"],
        bound: "a new account, of an identity that opens it, and the first admin of a tenant made with it",
    },
    Exception {
        method: "InviteOwner",
        gives: &["OWNER"],
        bound: "where no owner is; the approver consents, and finances begin 7 days later",
    },
    Exception {
        method: "RestoreManager",
        gives: &["MANAGER"],
        bound: "where no active manager is",
    },
    Exception {
        method: "AddMembers",
        gives: &["ADMIN_AGENT"],
        bound: "by a MANAGER, to another person than oneself, where no active ADMIN_AGENT is",
    },
    Exception {
        method: "UpdateMembers",
        gives: &["ADMIN_AGENT"],
        bound: "by a MANAGER, to another person than oneself, where no active ADMIN_AGENT is",
    },
    Exception {
        method: "AssignOperatorRoles",
        gives: &[
            "OPERATOR_ADMIN",
            "OPERATOR_REVIEWER",
            "OPERATOR_FINANCE",
            "OPERATOR_SUPPORT",
            "OPERATOR_SERVICE",
        ],
        bound: "never OPERATOR_FINANCE beside OPERATOR_ADMIN",
    },
    Exception {
        method: "GrantFinance",
        gives: &["FINANCE"],
        bound: "to people who are members",
    },
    Exception {
        // No method, but what two people and a mailed link bring about.
        method: "recovery",
        // The owner too: one who has it already gets the way in, another one takes its place.
        gives: &["GLOBAL_ADMIN", "MANAGER", "OWNER"],
        bound: "two people of the operator, 72 hours, mails by which it is stopped",
    },
    Exception {
        method: "CreateCustomerUser",
        gives: &["GLOBAL_ADMIN"],
        bound: "in a customer's tenant, by whom its GLOBAL_ADMIN is lent to",
    },
    Exception {
        method: "SetDirectorySynchronization",
        gives: &["directory.sync"],
        bound: "to the application that it names as the agent",
    },
];

/// What stands for holding something oneself, where what an application holds is passed on with its keys.
#[derive(Debug)]
pub struct StandIn {
    /// The role or single permission that the application holds.
    pub holds: &'static str,
    /// What the caller needs instead, on the same scope.
    pub instead: Permission,
}

/// What no person can hold is passed on by those who may give it.
pub const STAND_INS: &[StandIn] = &[
    StandIn {
        holds: "OPERATOR_SERVICE",
        instead: Permission::StaffManage,
    },
    StandIn {
        holds: "directory.sync",
        instead: Permission::SyncManage,
    },
];

/// The exception of a method (`package.Service/Method`) for a role or a permission, if there is one.
#[must_use]
pub fn of(method: &str, role: &str) -> Option<&'static Exception> {
    let name = method.rsplit('/').next().unwrap_or(method);
    EXCEPTIONS
        .iter()
        .find(|e| e.method == name && e.gives.contains(&role))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::roles::{ACCOUNT_ROLES, OPERATOR_ROLES, TENANT_ROLES};

    // proves ROL-7
    #[test]
    fn exceptions_are_those_of_the_rules() {
        let text = include_str!("../../docs/rules/0-permissions.md");
        let (_, table) = text.split_once("## Who may give what they lack").unwrap();
        for exception in EXCEPTIONS {
            let row = table
                .lines()
                .find(|l| {
                    l.split('|')
                        .nth(1)
                        .is_some_and(|act| act.contains(exception.method))
                })
                .unwrap_or_else(|| panic!("{} is no exception in the rules", exception.method));
            let gives = row.split('|').nth(2).unwrap();
            for role in exception.gives {
                assert!(
                    gives.contains(role)
                        || gives.contains("any operator role")
                        || (*role == "OWNER" && gives.contains("the owner")),
                    "{} gives {role}",
                    exception.method
                );
            }
        }
    }

    // proves ROL-7
    #[test]
    fn exceptions_of_the_rules_are_all_there() {
        let text = include_str!("../../docs/rules/0-permissions.md");
        let (_, table) = text.split_once("## Who may give what they lack").unwrap();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.';
        let words = |text: &'static str| {
            text.split(move |c: char| !is_word(c))
                .filter(|w| !w.is_empty())
        };
        let mut seen = Vec::new();
        let rows = table.lines().filter(|l| l.starts_with("| "));
        for row in rows.filter(|l| !l.starts_with("| act") && !l.starts_with("| ---")) {
            let cells: Vec<&str> = row.split('|').collect();
            let is_role = |w: &&str| {
                [TENANT_ROLES, ACCOUNT_ROLES, OPERATOR_ROLES]
                    .into_iter()
                    .flatten()
                    .any(|role| role.name == *w)
                    || Permission::parse(w).is_some()
            };
            for role in words(cells[2]).filter(is_role) {
                let acts = words(cells[1]).filter(|act| of(act, role).is_some());
                let before = seen.len();
                seen.extend(acts.map(|act| (act, role)));
                assert!(seen.len() > before, "nothing gives {role} by {}", cells[1]);
            }
        }
        assert!(seen.len() > 12, "{seen:?}");
    }

    // proves ROL-7, APP-4
    #[test]
    fn stand_ins_are_those_of_the_rules() {
        let text = include_str!("../../docs/rules/0-permissions.md");
        let (_, table) = text.split_once("## Who may give what they lack").unwrap();
        for stand_in in STAND_INS {
            let row = table
                .lines()
                .find(|l| l.contains(stand_in.holds) && l.contains("keys"))
                .unwrap_or_else(|| panic!("{} is no exception in the rules", stand_in.holds));
            let who = row.split('|').nth(3).unwrap();
            assert_eq!(who.trim(), stand_in.instead.name());
        }
    }

    #[test]
    fn everything_else_is_no_exception() {
        assert!(of("entente.account.v1.MemberService/AddMembers", "MANAGER").is_none());
        assert!(of("entente.directory.v1.UserService/CreateUser", "ADMIN_AGENT").is_none());
    }
}
