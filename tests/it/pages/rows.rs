//! Rows of the lists, made by SQL, without their calls.

/// Fills the lists. Times are those of 2030 and later, so that the rows which were there before come first.
pub const MANY: &[&str] = &[
    "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, recovery_email, \
        kind, state, create_time, update_time, version) \
     SELECT {random}, {tenant}, 'bulk' || n, 'bulk' || n, 'Bulk', 'User', 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', \
        1, 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO users (id, tenant_id, user_name, user_name_fold, given_name, family_name, display_name, display_name_fold, recovery_email, \
        kind, state, create_time, update_time, version) \
     VALUES ({far}, {tenant}, 'Graf.Zeppelin', 'graf.zeppelin', 'Wärme', 'Zeppelin', 'Wärme Zeppelin', 'wärme zeppelin', '', \
        1, 1, 2000000000000000, 0, 1)",
    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
        display_name_fold, create_time, update_time, version) \
     SELECT 2, {account}, u.id, 1, u.tenant_id, 4, '', '', u.display_name_fold, u.create_time, 0, 1 FROM users u WHERE u.create_time > 1800000000000000",
    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
        display_name_fold, create_time, update_time, version) \
     SELECT 0, {nil}, u.id, 1, u.tenant_id, 16, '', '', u.display_name_fold, u.create_time, 0, 1 FROM users u WHERE u.create_time > 1800000000000000",
    "INSERT INTO applications (id, tenant_id, display_name, display_name_fold, reply_url, application_id_uri, state, create_time, update_time, version) \
     SELECT {random}, {tenant}, 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', '', 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO applications (id, tenant_id, display_name, display_name_fold, reply_url, application_id_uri, state, create_time, update_time, version) \
     VALUES ({far_application}, {tenant}, 'Wärme Zeppelin', 'wärme zeppelin', '', '', 1, 2000000000000000, 0, 1)",
    "INSERT INTO user_groups (id, tenant_id, display_name, display_name_fold, external_id, create_time, update_time, version) \
     VALUES ({far_group}, {tenant}, 'Wärme Zeppelin', 'wärme zeppelin', '', 2000000000000000, 0, 1), \
        ({strange_group}, {tenant}, 'Others', 'others', '', 0, 0, 1), ({crowd}, {tenant}, 'Crowd', 'crowd', '', 0, 0, 1)",
    "INSERT INTO user_groups (id, tenant_id, display_name, display_name_fold, external_id, create_time, update_time, version) \
     SELECT {random}, {tenant}, 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
     SELECT {crowd}, u.id, u.display_name_fold, u.create_time FROM users u WHERE u.create_time > 1800000000000000",
    "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
     SELECT g.id, {ann}, 'ann smith', 0 FROM user_groups g WHERE g.display_name_fold IN ('bulk 3', 'wärme zeppelin')",
    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
        display_name_fold, create_time, update_time, version) \
     VALUES (2, {account}, {far_application}, 2, {tenant}, 0, '', '', 'wärme zeppelin', 2000000000000000, 0, 1), \
        (2, {account}, {far_group}, 4, {tenant}, 0, '', '', 'wärme zeppelin', 2000000000000000, 0, 1)",
    "INSERT INTO group_members (group_id, user_id, display_name_fold, create_time) \
     VALUES ({far_group}, {far}, 'wärme zeppelin', 0), ({strange_group}, {far}, 'wärme zeppelin', 0)",
    "INSERT INTO application_keys (id, application_id, hash, hint, create_time, expire_time, version) \
     SELECT {random}, {application}, {bytes}, 'hint', 1900000000000000 + n / 3 * 1000000, 2000000000000000, 1 FROM s",
    "INSERT INTO sessions (id, user_id, tenant_id, client_address, create_time, sign_in_time, last_refresh_time, expire_time, \
        refresh_hash, previous_hash, previous_until, version) \
     SELECT {random}, {ann}, {tenant}, '', 1900000000000000 + n / 3 * 1000000, 0, 0, 2000000000000000, {bytes}, {bytes}, 0, 1 FROM s",
    "INSERT INTO tenants (id, domain_prefix, display_name, display_name_fold, contact_email, is_operator, state, create_time, update_time, version) \
     SELECT {random}, 'bulk' || n, 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', false, 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO tenants (id, domain_prefix, display_name, display_name_fold, contact_email, is_operator, state, create_time, update_time, version) \
     VALUES ({far}, 'graf-zeppelin', 'Wärme Zeppelin', 'wärme zeppelin', '', false, 1, 2000000000000000, 0, 1)",
    "INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) \
     SELECT {account}, t.id, t.display_name_fold, t.create_time, 1 FROM tenants t WHERE t.create_time > 1800000000000000",
    "INSERT INTO accounts (id, publisher_display_name, publisher_display_name_fold, legal_name, legal_name_fold, country_code, type, seller_id, \
        state, create_time, update_time, version) \
     SELECT {random}, 'Bulk ' || n, 'bulk ' || n, 'Bulk Ltd', 'bulk ltd', 'FR', 1, 'B' || n, 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO accounts (id, publisher_display_name, publisher_display_name_fold, legal_name, legal_name_fold, country_code, type, seller_id, \
        state, create_time, update_time, version) \
     VALUES ({far}, 'Wärme Zeppelin', 'wärme zeppelin', 'Zeppelin GmbH', 'zeppelin gmbh', 'FR', 1, 'Z', 1, 2000000000000000, 0, 1)",
    "INSERT INTO associations (account_id, tenant_id, display_name_fold, create_time, version) \
     SELECT a.id, {tenant}, 'contoso company', a.create_time, 1 FROM accounts a WHERE a.create_time > 1800000000000000",
    "INSERT INTO grants (scope_kind, scope_id, principal_id, principal_kind, tenant_id, roles, permissions, on_behalf_ceiling, \
        display_name_fold, create_time, update_time, version) \
     SELECT 2, a.id, {ann}, 1, {tenant}, 2, '', '', 'ann smith', a.create_time, 0, 1 FROM accounts a WHERE a.create_time > 1800000000000000",
    "INSERT INTO mails (id, recipient, template, language, object, sealed_values, state, attempt_count, last_error, create_time, send_time, \
        next_attempt_time, version) \
     SELECT {random}, 'a@example.com', 'password_reset', 'en', '', {bytes}, 2, 1, '', 1900000000000000 + n / 3 * 1000000, 0, 0, 1 FROM s",
    "INSERT INTO audit_events (scope_kind, scope_id, seq, event_id, create_time, action, actor, outcome, body, hash) \
     SELECT 2, {account}, 1000000 + n, {random}, 1900000000000000 + n / 3 * 1000000, 'bulk', '', 'OK', {bytes}, {bytes} FROM s",
    "INSERT INTO invitations (id, tenant_id, user_id, email, email_fold, roles, permissions, inviter_id, inviter_kind, inviter_tenant_id, language, state, \
        create_time, send_time, expire_time, version) \
     SELECT {random}, {tenant}, {random}, 'bulk' || n || '@mail.example', 'bulk' || n || '@mail.example', 0, '', {ann}, 1, {tenant}, 'en', 2, \
        1900000000000000 + n / 3 * 1000000, 0, 2000000000000000, 1 FROM s",
    "INSERT INTO invitations (id, tenant_id, user_id, email, email_fold, roles, permissions, inviter_id, inviter_kind, inviter_tenant_id, language, state, \
        create_time, send_time, expire_time, version) \
     VALUES ({far}, {tenant}, {random}, 'zeppelin@mail.example', 'zeppelin@mail.example', 0, '', {ann}, 1, {tenant}, 'en', 2, 2000000000000000, 0, \
        2000000000000000, 1)",
    "INSERT INTO domains (id, tenant_id, domain_name, token, state, create_time, update_time, version) \
     SELECT {random}, {tenant}, 'bulk' || n || '.example', '', 1, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO recovery_cases (id, role, scope_kind, scope_id, person_kind, person_id, person_tenant_id, proven_email, note, state, opened_by_id, \
        opened_by, approved_by, stopped_by, stop_reason, create_time, version) \
     SELECT {random}, 1, 1, {tenant}, 1, {ann}, {tenant}, '', '', 5, {ann}, '', '', '', '', 1900000000000000 + n / 3 * 1000000, 1 FROM s",
    "INSERT INTO reviews (id, kind, account_id, subject, submitter, note, state, more_requested, approvals_needed, decided, decision, reason, decided_by, \
        create_time, update_time, version) \
     SELECT {random}, k.kind, {account}, 'accounts/' || n, '', '', 1, '', 1, false, 0, '', '', 1900000000000000 + n / 3 * 1000000, 0, 1 \
     FROM s, (SELECT 1 AS kind UNION SELECT 2) k",
    "INSERT INTO reviews (id, kind, account_id, subject, submitter, note, state, more_requested, approvals_needed, decided, decision, reason, decided_by, \
        create_time, update_time, version) \
     SELECT {random}, r.kind, r.account_id, r.subject, '', '', 4, '', 1, true, 1, '', '', r.create_time, 0, 1 FROM reviews r WHERE r.kind = 1",
    "INSERT INTO agreements (id, kind, number, is_placeholder, effective_time, create_time, version) \
     SELECT {random}, 2, 1000 + n, false, 2000000000000000, 1900000000000000 + n / 3 * 1000000, 1 FROM s",
    "INSERT INTO acceptances (id, scope_kind, scope_id, agreement_id, kind, number, language, title, sha256, accepted_by, create_time) \
     SELECT {random}, 2, {account}, a.id, a.kind, a.number, 'en', '', {bytes}, '', a.create_time FROM agreements a WHERE a.number > 1000",
    "INSERT INTO package_offers (id, display_name, display_name_fold, currency_code, amount_minor, term_days, contents, withdrawn, create_time, \
        update_time, version) \
     SELECT {random}, 'Bulk ' || (n % 7), 'bulk ' || (n % 7), 'EUR', 1, 365, '[]', false, 1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO packages (id, account_id, package_offer_id, display_name, currency_code, amount_minor, create_time, version) \
     SELECT {random}, {account}, p.id, p.display_name, 'EUR', 1, p.create_time, 1 FROM package_offers p",
    "INSERT INTO benefits (id, account_id, kind, display_name, display_name_fold, total, used, create_time, version) \
     SELECT {random}, {account}, 1, p.display_name, p.display_name_fold, 1, 0, p.create_time, 1 FROM package_offers p",
    "INSERT INTO offers (id, account_id, kind, display_name_fold, state, latest_version, live_version, live, was_published, submit_time, create_time, \
        update_time, version) \
     SELECT {random}, {account}, 1, 'bulk ' || (n % 7), 2, 1, 0, false, false, 1900000000000000 + n / 3 * 1000000, 1900000000000000 + n / 3 * 1000000, \
        0, 1 FROM s",
    "INSERT INTO offers (id, account_id, kind, display_name_fold, state, latest_version, live_version, live, was_published, submit_time, create_time, \
        update_time, version) \
     VALUES ({far}, {account}, 1, 'wärme zeppelin', 2, 1, 0, false, false, 2000000000000000, 2000000000000000, 0, 1)",
    "INSERT INTO relationships (id, account_id, kind, state, display_name, display_name_fold, message, customer_email, customer_domain, requested_roles, \
        requested_days, roles, accepted_by, agreement_number, roles_removed_by, closed_by, create_time, update_time, version) \
     SELECT {random}, {account}, 1, 1, 'Bulk ' || n, 'bulk ' || n, '', 'a@example.com', '', 8, 1, 0, '', 0, '', '', \
        1900000000000000 + n / 3 * 1000000, 0, 1 FROM s",
    "INSERT INTO relationships (id, account_id, kind, state, display_name, display_name_fold, message, customer_email, customer_domain, requested_roles, \
        requested_days, roles, accepted_by, agreement_number, roles_removed_by, closed_by, create_time, update_time, version) \
     VALUES ({far}, {account}, 1, 1, 'Wärme Zeppelin', 'wärme zeppelin', '', 'a@example.com', '', 8, 1, 0, '', 0, '', '', 2000000000000000, 0, 1)",
    "INSERT INTO offer_versions (offer_id, number, state, display_name, description, prices, customers, review_reason, create_time) \
     SELECT o.id, 1, 2, o.display_name_fold, '', '[]', '', '', o.create_time FROM offers o",
    "INSERT INTO offer_usage (id, account_id, offer_id, day, country_code, customer_id, units, create_time, update_time) \
     SELECT {random}, {account}, {far}, 20000 + n / 3, 'FR', {random}, 1, 1900000000000000 + n / 3 * 1000000, 0 FROM s",
    "INSERT INTO policies (id, policy_key, value, effective_time, set_by, create_time) \
     SELECT {random}, 1 + n % 2, 1, 1990000000000000 + n / 5 * 1000000, '', 1900000000000000 + n / 3 * 1000000 FROM s",
    "INSERT INTO reserved_names (id, display_name, display_name_fold, note, create_time, version) \
     SELECT {random}, 'Bulk ' || (n % 7), 'bulk ' || (n % 7), '', 1900000000000000 + n / 3 * 1000000, 1 FROM s",
];
