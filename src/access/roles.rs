//! Permissions and roles (ROL-1): the whole table, role by permission, in this one place. Checks are made on permissions, never on
//! role names. A test holds it against `docs/rules/0-permissions.md`.

use std::fmt;

use crate::proto::{access::AccountRole, directory::DirectoryRole, operator::OperatorRole};

macro_rules! permissions {
    ($($variant:ident = $name:literal,)*) => {
        /// What somebody may do somewhere. The order is of no meaning; names are what is stored and sent.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Permission { $(#[doc = $name] $variant,)* }

        impl Permission {
            /// All permissions.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name, such as `users.create`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The permission of a name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

permissions! {
    TenantRead = "tenant.read",
    TenantUpdate = "tenant.update",
    TenantDelete = "tenant.delete",
    DomainsManage = "domains.manage",
    FederationManage = "federation.manage",
    SyncManage = "sync.manage",
    DirectorySync = "directory.sync",
    UsersRead = "users.read",
    UsersCreate = "users.create",
    UsersUpdate = "users.update",
    UsersDisable = "users.disable",
    UsersDelete = "users.delete",
    UsersResetPassword = "users.reset_password",
    SessionsEnd = "sessions.end",
    DirectoryRolesAssign = "directory_roles.assign",
    GroupsRead = "groups.read",
    GroupsManage = "groups.manage",
    ApplicationsRead = "applications.read",
    ApplicationsManage = "applications.manage",
    InvitationsManage = "invitations.manage",
    AgreementsAccept = "agreements.accept",
    RelationshipsRead = "relationships.read",
    RelationshipsAnswer = "relationships.answer",
    RelationshipsEnd = "relationships.end",
    RelationshipsGrantRoles = "relationships.grant_roles",
    ReferralsCreate = "referrals.create",
    PurchasesRead = "purchases.read",
    SubscriptionsManage = "subscriptions.manage",
    LicencesAssign = "licences.assign",
    IncidentsManage = "incidents.manage",
    AuditRead = "audit.read",
    EventsRead = "events.read",
    AccountRead = "account.read",
    EngagementsJoin = "engagements.join",
    AccountUpdate = "account.update",
    AccountClose = "account.close",
    MembersRead = "members.read",
    UsersAssign = "users.assign",
    MembersRemove = "members.remove",
    MembersRestoreManager = "members.restore_manager",
    TenantsManage = "tenants.manage",
    TenantsRemoveLast = "tenants.remove_last",
    OwnerTie = "owner.tie",
    FinanceGrant = "finance.grant",
    ProgramsEnroll = "programs.enroll",
    VerificationSubmit = "verification.submit",
    BenefitsManage = "benefits.manage",
    OffersRead = "offers.read",
    OffersManage = "offers.manage",
    OffersPublish = "offers.publish",
    ReportsRead = "reports.read",
    ProfilesManage = "profiles.manage",
    ReferralsManage = "referrals.manage",
    RelationshipsRequest = "relationships.request",
    RelationshipsAssign = "relationships.assign",
    DelegatedAct = "delegated.act",
    PurchasesPlace = "purchases.place",
    IncidentsHandle = "incidents.handle",
    PayoutsSettingsRead = "payouts.settings.read",
    PayoutsSettingsUpdate = "payouts.settings.update",
    PayoutsHold = "payouts.hold",
    TaxRead = "tax.read",
    TaxUpdate = "tax.update",
    StatementsRead = "statements.read",
    StaffManage = "staff.manage",
    TenantsCreate = "tenants.create",
    AccountsCreate = "accounts.create",
    AccountsSuspend = "accounts.suspend",
    AccountsSearch = "accounts.search",
    AccountsRead = "accounts.read",
    TenantsRead = "tenants.read",
    AgreementsPublish = "agreements.publish",
    ReservedNamesManage = "reserved_names.manage",
    PolicyManage = "policy.manage",
    CompetenciesRecord = "competencies.record",
    ReviewsHandle = "reviews.handle",
    RecoveryOpen = "recovery.open",
    RecoveryApprove = "recovery.approve",
    LedgerRecord = "ledger.record",
    PurchasesRecord = "purchases.record",
    BillingConfirm = "billing.confirm",
    AccessCheck = "access.check",
    OnBehalfAct = "on_behalf.act",
    RunsPrepare = "runs.prepare",
    RunsApprove = "runs.approve",
    PayoutsMark = "payouts.mark",
    AdjustmentsMake = "adjustments.make",
    TaxReview = "tax.review",
    EngagementsCreate = "engagements.create",
    EngagementsAllow = "engagements.allow",
    ClockMove = "clock.move",
}

use Permission as P;

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u128);

impl Permissions {
    /// None.
    pub const NONE: Self = Self(0);

    /// Those of a list.
    #[must_use]
    pub const fn of(list: &[Permission]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < list.len() {
            bits |= 1 << list[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether it holds one.
    #[must_use]
    pub fn has(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that the other set lacks.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its permissions, by name.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let mut names: Vec<_> = Permission::ALL
            .iter()
            .filter(|p| self.has(**p))
            .map(|p| p.name())
            .collect();
        names.sort_unstable();
        names
    }

    /// As it is stored: names with commas between.
    #[must_use]
    pub fn to_stored(self) -> String {
        self.names().join(",")
    }

    /// What `to_stored` gave; names that are no longer known give nothing.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        text.split(',').filter_map(Permission::parse).collect()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(iter: I) -> Self {
        Self(iter.into_iter().fold(0, |bits, p| bits | 1 << p as u8))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A role of one kind of scope.
pub struct Role {
    /// Its name on the wire.
    pub name: &'static str,
    /// Its number in the proto's enumeration; `1 << number` is its bit in the database.
    pub number: i32,
    /// What it may do.
    pub permissions: Permissions,
}

impl Role {
    /// Its bit in the database.
    #[must_use]
    pub fn bit(&self) -> i64 {
        1 << self.number
    }
}

/// Roles on a tenant.
pub const TENANT_ROLES: &[Role] = &[
    Role {
        name: "GLOBAL_ADMIN",
        number: DirectoryRole::GlobalAdmin as i32,
        permissions: Permissions::of(&[
            P::TenantRead,
            P::TenantUpdate,
            P::TenantDelete,
            P::DomainsManage,
            P::FederationManage,
            P::SyncManage,
            P::UsersRead,
            P::UsersCreate,
            P::UsersUpdate,
            P::UsersDisable,
            P::UsersDelete,
            P::UsersResetPassword,
            P::SessionsEnd,
            P::DirectoryRolesAssign,
            P::GroupsRead,
            P::GroupsManage,
            P::ApplicationsRead,
            P::ApplicationsManage,
            P::InvitationsManage,
            P::AgreementsAccept,
            P::RelationshipsRead,
            P::RelationshipsAnswer,
            P::RelationshipsEnd,
            P::RelationshipsGrantRoles,
            P::ReferralsCreate,
            P::PurchasesRead,
            P::SubscriptionsManage,
            P::LicencesAssign,
            P::IncidentsManage,
            P::AuditRead,
            P::EventsRead,
        ]),
    },
    Role {
        name: "BILLING_ADMIN",
        number: DirectoryRole::BillingAdmin as i32,
        permissions: Permissions::of(&[
            P::TenantRead,
            P::UsersRead,
            P::GroupsRead,
            P::AgreementsAccept,
            P::RelationshipsRead,
            P::RelationshipsAnswer,
            P::RelationshipsEnd,
            P::ReferralsCreate,
            P::PurchasesRead,
            P::SubscriptionsManage,
        ]),
    },
    Role {
        name: "HELPDESK_ADMIN",
        number: DirectoryRole::HelpdeskAdmin as i32,
        permissions: Permissions::of(&[
            P::TenantRead,
            P::UsersRead,
            P::UsersResetPassword,
            P::SessionsEnd,
            P::GroupsRead,
            P::LicencesAssign,
            P::IncidentsManage,
        ]),
    },
];

/// Roles on an account.
pub const ACCOUNT_ROLES: &[Role] = &[
    Role {
        name: "MANAGER",
        number: AccountRole::Manager as i32,
        permissions: Permissions::of(&[
            P::AccountRead,
            P::EngagementsJoin,
            P::AccountUpdate,
            P::MembersRead,
            P::UsersAssign,
            P::MembersRemove,
            P::TenantsManage,
            P::OwnerTie,
            P::ProgramsEnroll,
            P::VerificationSubmit,
            P::AgreementsAccept,
            P::BenefitsManage,
            P::OffersRead,
            P::OffersManage,
            P::OffersPublish,
            P::ReportsRead,
            P::ProfilesManage,
            P::ReferralsManage,
            P::RelationshipsRead,
            P::RelationshipsRequest,
            P::PurchasesRead,
            P::PurchasesPlace,
            P::IncidentsHandle,
            P::StatementsRead,
            P::AuditRead,
            P::EventsRead,
        ]),
    },
    Role {
        name: "DEVELOPER",
        number: AccountRole::Developer as i32,
        permissions: Permissions::of(&[
            P::AccountRead,
            P::EngagementsJoin,
            P::OffersRead,
            P::OffersManage,
            P::OffersPublish,
            P::ReportsRead,
        ]),
    },
    Role {
        name: "FINANCE",
        number: AccountRole::Finance as i32,
        permissions: Permissions::of(&[
            P::AccountRead,
            P::EngagementsJoin,
            P::MembersRead,
            P::FinanceGrant,
            P::PayoutsSettingsRead,
            P::PayoutsSettingsUpdate,
            P::PayoutsHold,
            P::TaxRead,
            P::TaxUpdate,
            P::StatementsRead,
        ]),
    },
    Role {
        name: "ADMIN_AGENT",
        number: AccountRole::AdminAgent as i32,
        permissions: Permissions::of(&[
            P::AccountRead,
            P::EngagementsJoin,
            P::MembersRead,
            P::UsersAssign,
            P::ProfilesManage,
            P::ReferralsManage,
            P::RelationshipsRead,
            P::RelationshipsRequest,
            P::RelationshipsAssign,
            P::DelegatedAct,
            P::PurchasesRead,
            P::PurchasesPlace,
            P::IncidentsHandle,
        ]),
    },
    Role {
        name: "HELPDESK_AGENT",
        number: AccountRole::HelpdeskAgent as i32,
        permissions: Permissions::of(&[
            P::AccountRead,
            P::EngagementsJoin,
            P::RelationshipsRead,
            P::DelegatedAct,
            P::IncidentsHandle,
        ]),
    },
    Role {
        name: "OWNER",
        number: AccountRole::Owner as i32,
        permissions: Permissions::of(&[
            P::AccountRead,
            P::EngagementsJoin,
            P::AccountUpdate,
            P::AccountClose,
            P::MembersRead,
            P::MembersRemove,
            P::MembersRestoreManager,
            P::TenantsManage,
            P::TenantsRemoveLast,
            P::OwnerTie,
            P::FinanceGrant,
            P::ProgramsEnroll,
            P::VerificationSubmit,
            P::AgreementsAccept,
            P::PayoutsSettingsRead,
            P::PayoutsSettingsUpdate,
            P::PayoutsHold,
            P::TaxRead,
            P::TaxUpdate,
            P::StatementsRead,
            P::AuditRead,
            P::EventsRead,
        ]),
    },
];

/// Roles on the operator.
pub const OPERATOR_ROLES: &[Role] = &[
    Role {
        name: "OPERATOR_ADMIN",
        number: OperatorRole::OperatorAdmin as i32,
        permissions: Permissions::of(&[
            P::StaffManage,
            P::TenantsCreate,
            P::AccountsCreate,
            P::AccountsSuspend,
            P::AccountsSearch,
            P::AccountsRead,
            P::TenantsRead,
            P::AgreementsPublish,
            P::ReservedNamesManage,
            P::PolicyManage,
            P::CompetenciesRecord,
            P::RecoveryOpen,
            P::RecoveryApprove,
            P::EngagementsCreate,
            P::EngagementsAllow,
            P::AuditRead,
            P::ClockMove,
        ]),
    },
    Role {
        name: "OPERATOR_REVIEWER",
        number: OperatorRole::OperatorReviewer as i32,
        permissions: Permissions::of(&[
            P::AccountsSearch,
            P::AccountsRead,
            P::TenantsRead,
            P::ReviewsHandle,
            P::RecoveryOpen,
            P::RecoveryApprove,
        ]),
    },
    Role {
        name: "OPERATOR_FINANCE",
        number: OperatorRole::OperatorFinance as i32,
        permissions: Permissions::of(&[
            P::AccountsSearch,
            P::AccountsRead,
            P::TenantsRead,
            P::RunsPrepare,
            P::RunsApprove,
            P::PayoutsMark,
            P::AdjustmentsMake,
            P::TaxReview,
        ]),
    },
    Role {
        name: "OPERATOR_SUPPORT",
        number: OperatorRole::OperatorSupport as i32,
        permissions: Permissions::of(&[
            P::AccountsSearch,
            P::AccountsRead,
            P::TenantsRead,
            P::RecoveryOpen,
            P::RecoveryApprove,
        ]),
    },
    Role {
        name: "OPERATOR_SERVICE",
        number: OperatorRole::OperatorService as i32,
        permissions: Permissions::of(&[
            P::AccountsSearch,
            P::AccountsRead,
            P::TenantsRead,
            P::LedgerRecord,
            P::PurchasesRecord,
            P::BillingConfirm,
            P::AccessCheck,
            P::OnBehalfAct,
            P::EventsRead,
        ]),
    },
];

/// What every member of an account may, with or without roles.
pub const MEMBER: Permissions = Permissions::of(&[P::AccountRead, P::EngagementsJoin]);

/// Given as part of their role only, never singly (ROL-12).
pub const ROLE_BOUND: Permissions = Permissions::of(&[
    P::PayoutsSettingsRead,
    P::PayoutsSettingsUpdate,
    P::PayoutsHold,
    P::PayoutsMark,
    P::TaxRead,
    P::TaxUpdate,
    P::TaxReview,
    P::FinanceGrant,
    P::OwnerTie,
    P::DelegatedAct,
    P::RelationshipsAssign,
    P::AccountClose,
    P::TenantsRemoveLast,
    P::MembersRestoreManager,
]);

/// What a directory role lends to a partner (REL-14, REL-20 to REL-22): to administer people, licences and incidents, and nothing else.
pub const LENDABLE: Permissions = Permissions::of(&[
    P::UsersRead,
    P::UsersCreate,
    P::UsersDisable,
    P::UsersResetPassword,
    P::DirectoryRolesAssign,
    P::LicencesAssign,
    P::IncidentsManage,
]);

/// Asleep for 72 hours after somebody else set the credential (ROL-13); on the operator, all permissions are. `finance.grant` with them: who
/// may not use payouts yet must not hand them to somebody who may.
pub const SLEEPING: Permissions = Permissions::of(&[
    P::PayoutsSettingsRead,
    P::PayoutsSettingsUpdate,
    P::PayoutsHold,
    P::PayoutsMark,
    P::TaxRead,
    P::TaxUpdate,
    P::TaxReview,
    P::FinanceGrant,
    P::OwnerTie,
    P::DelegatedAct,
]);

/// What begins 7 days later for a first owner who was tied to an account (ACC-20); `finance.grant` with it, or it would be handed round that.
pub const BEGINNING_LATER: Permissions = Permissions::of(&[
    P::PayoutsSettingsRead,
    P::PayoutsSettingsUpdate,
    P::PayoutsHold,
    P::TaxRead,
    P::TaxUpdate,
    P::FinanceGrant,
]);

/// What a service may not do on behalf of a person, unless its ceiling says otherwise (COM-16).
pub const NOT_ON_BEHALF: Permissions = Permissions::of(&[
    P::PayoutsSettingsRead,
    P::PayoutsSettingsUpdate,
    P::PayoutsHold,
    P::PayoutsMark,
    P::TaxRead,
    P::TaxUpdate,
    P::TaxReview,
    P::OwnerTie,
    P::FinanceGrant,
    P::AccountClose,
    P::StaffManage,
]);

/// Account roles that people hold, never groups or applications (ROL-4, ROL-12).
pub const PEOPLE_ONLY_ACCOUNT_ROLES: i64 = 1 << AccountRole::Finance as i32
    | 1 << AccountRole::AdminAgent as i32
    | 1 << AccountRole::Owner as i32;

/// The permissions of role bits.
#[must_use]
pub fn permissions_of(roles: &[Role], bits: i64) -> Permissions {
    roles
        .iter()
        .filter(|r| bits & r.bit() != 0)
        .fold(Permissions::NONE, |all, r| all.and(r.permissions))
}

/// The names of role bits.
#[must_use]
pub fn names_of(roles: &[Role], bits: i64) -> Vec<&'static str> {
    roles
        .iter()
        .filter(|r| bits & r.bit() != 0)
        .map(|r| r.name)
        .collect()
}

/// The numbers of role bits, as in the proto's enumeration.
#[must_use]
pub fn numbers_of(roles: &[Role], bits: i64) -> Vec<i32> {
    roles
        .iter()
        .filter(|r| bits & r.bit() != 0)
        .map(|r| r.number)
        .collect()
}

/// The bits of an enumeration's numbers; numbers that are no role give nothing.
#[must_use]
pub fn bits_of(roles: &[Role], numbers: &[i32]) -> i64 {
    roles
        .iter()
        .filter(|r| numbers.contains(&r.number))
        .fold(0, |bits, r| bits | r.bit())
}

/// All permissions that are known on accounts.
#[must_use]
pub fn account_permissions() -> Permissions {
    ACCOUNT_ROLES
        .iter()
        .fold(MEMBER, |all, r| all.and(r.permissions))
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves ROL-1, ROL-2, ROL-3
    #[test]
    fn table_is_the_one_of_the_rules() {
        let text = include_str!("../../docs/rules/0-permissions.md");
        let mut section = "";
        let mut heads: Vec<String> = Vec::new();
        let mut rows = 0;
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                section = title.trim();
                heads.clear();
                continue;
            }
            let roles = match section {
                "Tenant" => TENANT_ROLES,
                "Account" => ACCOUNT_ROLES,
                "Operator" => OPERATOR_ROLES,
                _ => continue,
            };
            if !line.starts_with('|') || line.starts_with("| ---") {
                continue;
            }
            let cells: Vec<_> = line
                .trim()
                .trim_matches('|')
                .split('|')
                .map(|c| c.trim().to_owned())
                .collect();
            if heads.is_empty() {
                heads = cells;
                continue;
            }
            let plain: String = cells[0]
                .split('(')
                .map(|p| p.split_once(')').map_or(p, |(_, rest)| rest))
                .collect();
            for name in plain
                .split([',', ';'])
                .map(str::trim)
                .filter(|n| n.contains('.'))
            {
                let permission = Permission::parse(name)
                    .unwrap_or_else(|| panic!("{name} is in the rules, not in the source"));
                rows += 1;
                for role in roles {
                    let column = heads.iter().position(|h| h == role.name).unwrap();
                    let says = cells.get(column).is_some_and(|c| c == "x");
                    assert_eq!(
                        role.permissions.has(permission),
                        says,
                        "{section}: {} {name}",
                        role.name
                    );
                }
            }
        }
        assert!(rows > 90, "{rows} permissions read from the rules");
    }

    #[test]
    fn stored_permissions_come_back() {
        let all: Permissions = Permission::ALL.iter().copied().collect();
        assert_eq!(Permissions::from_stored(&all.to_stored()), all);
        assert_eq!(Permissions::from_stored(""), Permissions::NONE);
        assert_eq!(Permissions::from_stored("no.such"), Permissions::NONE);
    }

    #[test]
    fn sets_of_permissions_are_sets() {
        use Permission as P;
        let [a, b, c] = [P::TenantRead, P::UsersRead, P::ClockMove];
        let (ab, bc) = (Permissions::of(&[a, b]), Permissions::of(&[b, c]));
        assert_eq!(ab.and(bc), Permissions::of(&[a, b, c]));
        assert_eq!(ab.within(bc), Permissions::of(&[b]));
        assert_eq!(ab.without(bc), Permissions::of(&[a]));
        assert_eq!([a, b, b, b].into_iter().collect::<Permissions>(), ab);
        assert_eq!([a, b, a, b].into_iter().collect::<Permissions>(), ab);
        assert_eq!(Permissions::of(&[a, b, b]), ab);
        assert!(ab.has(a) && ab.has(b) && !ab.has(c));
        assert!(Permissions::NONE.is_empty() && !ab.is_empty());
        assert_eq!(ab.names(), ["tenant.read", "users.read"]);
        assert_eq!(ab.to_stored(), "tenant.read,users.read");
    }

    // proves ROL-1
    #[test]
    fn bits_of_roles_are_told_as_names_and_numbers_and_come_back() {
        let (manager, owner) = (AccountRole::Manager as i32, AccountRole::Owner as i32);
        for numbers in [
            &[][..],
            &[manager],
            &[owner],
            &[manager, owner],
            &[manager, AccountRole::Finance as i32, owner],
        ] {
            let bits = bits_of(ACCOUNT_ROLES, numbers);
            assert_eq!(bits, numbers.iter().map(|n| 1 << n).sum::<i64>());
            assert_eq!(numbers_of(ACCOUNT_ROLES, bits), numbers);
            let names = names_of(ACCOUNT_ROLES, bits);
            let told = numbers.iter().map(|n| {
                let role = AccountRole::try_from(*n).unwrap();
                role.as_str_name().trim_start_matches("ACCOUNT_ROLE_")
            });
            assert!(told.eq(names), "{numbers:?}");
        }
        let people_only = [
            AccountRole::Finance as i32,
            AccountRole::AdminAgent as i32,
            owner,
        ];
        assert_eq!(
            bits_of(ACCOUNT_ROLES, &people_only),
            PEOPLE_ONLY_ACCOUNT_ROLES
        );
        // The same twice is once, and what is no role is nothing.
        let bits = bits_of(ACCOUNT_ROLES, &[manager, manager, 0, 99]);
        assert_eq!(bits, 1 << manager);
    }
}
