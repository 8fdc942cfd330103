//! Benefits of membership (BEN): competencies, packages with their charges, and what is used of what they hold.

crate::step!(STATEMENTS);

const STATEMENTS: &[&str] = &[
    "CREATE TABLE competencies (
        id {uuid} PRIMARY KEY,
        account_id {uuid} NOT NULL,
        code {text} NOT NULL,
        expire_time bigint NOT NULL,
        create_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE UNIQUE INDEX competencies_code ON competencies (account_id, code)",
    // Contents are JSON: read and written as a whole.
    "CREATE TABLE package_offers (
        id {uuid} PRIMARY KEY,
        display_name {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        currency_code {text} NOT NULL,
        amount_minor bigint NOT NULL,
        term_days bigint NOT NULL,
        contents {text} NOT NULL,
        withdrawn boolean NOT NULL,
        create_time bigint NOT NULL,
        update_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE INDEX package_offers_by_time ON package_offers (create_time, id)",
    "CREATE INDEX package_offers_by_name ON package_offers (display_name_fold, id)",
    "CREATE TABLE packages (
        id {uuid} PRIMARY KEY,
        account_id {uuid} NOT NULL,
        package_offer_id {uuid} NOT NULL,
        display_name {text} NOT NULL,
        currency_code {text} NOT NULL,
        amount_minor bigint NOT NULL,
        charge_id {uuid},
        begin_time bigint,
        expire_time bigint,
        create_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE INDEX packages_by_time ON packages (account_id, create_time, id)",
    // What billing was told of, with the term that it is for.
    "CREATE TABLE package_charges (
        id {uuid} PRIMARY KEY,
        account_id {uuid} NOT NULL,
        package_id {uuid} NOT NULL,
        display_name {text} NOT NULL,
        currency_code {text} NOT NULL,
        amount_minor bigint NOT NULL,
        term_days bigint NOT NULL,
        contents {text} NOT NULL,
        create_time bigint NOT NULL,
        confirm_time bigint
    )",
    // Kinds are those of `entente.account.v1.BenefitKind`. Without a package it is that of the level, whose total policy says.
    "CREATE TABLE benefits (
        id {uuid} PRIMARY KEY,
        account_id {uuid} NOT NULL,
        package_id {uuid},
        kind bigint NOT NULL,
        display_name {text} NOT NULL,
        display_name_fold {text} NOT NULL,
        total bigint NOT NULL,
        used bigint NOT NULL,
        activate_time bigint,
        create_time bigint NOT NULL,
        version bigint NOT NULL
    )",
    "CREATE INDEX benefits_by_time ON benefits (account_id, create_time, id)",
    "CREATE INDEX benefits_by_name ON benefits (account_id, display_name_fold, id)",
    "CREATE INDEX benefits_of_package ON benefits (package_id)",
    "CREATE TABLE benefit_assignments (
        id {uuid} PRIMARY KEY,
        account_id {uuid} NOT NULL,
        benefit_id {uuid} NOT NULL,
        member_id {uuid},
        count bigint NOT NULL,
        create_time bigint NOT NULL
    )",
    "CREATE INDEX benefit_assignments_of_benefit ON benefit_assignments (benefit_id, create_time, id)",
];
