"""The tour's first half: tenants, an account and what people may there, repetitions, services, audit and events."""

from grpc import StatusCode

from client import new_request_id, replayed
from entente.access.v1 import access_pb2, grant_pb2, reason_pb2 as reasons
from entente.account.v1 import account_pb2, member_pb2, tenant_association_pb2
from entente.audit.v1 import audit_pb2
from entente.directory.v1 import application_pb2, role_pb2, tenant_pb2, user_pb2
from entente.operator.v1 import staff_pb2
from services import Access, Accounts, Applications, Associations, Audit, Events, Members, Staff, Tenants, Users
from steps import expect, may, refused, settle_in, sign_in, sign_in_by_key, step, who_am_i

# ---- people


@step("The operator's administrator")
def operator_signs_in(t):
    """The one-time password's token is good for nothing but a new password."""
    name, password = "admin@operator.partners.localhost", "violet-harbour-lantern"
    restricted = t.nobody.as_(sign_in(t.nobody, name, t.one_time))
    with refused(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_PASSWORD_CHANGE_REQUIRED):
        restricted.of(Tenants).ListTenants(tenant_pb2.ListTenantsRequest())
    t.operator = t.nobody.as_(settle_in(t.nobody, name, t.one_time, password))
    me = who_am_i(t.operator)
    print(me.display_name, "of", me.tenant.display_name)


def make_tenant(t, prefix, display_name, given_name, family_name, password):
    """A tenant with its first global admin, who signs in with the temporary password of the answer, shown this once."""
    user_name = given_name.lower()
    made = t.operator.of(Tenants).CreateTenant(
        tenant_pb2.CreateTenantRequest(
            tenant=tenant_pb2.Tenant(domain_prefix=prefix, display_name=display_name, contact_email=f"office@{prefix}.example"),
            first_admin=tenant_pb2.FirstAdmin(
                given_name=given_name, family_name=family_name, user_name=user_name, recovery_email=f"{user_name}@mail.example"
            ),
        )
    )
    token = settle_in(t.nobody, made.first_admin.sign_in_name, made.temporary_password, password)
    return made.tenant.name, made.first_admin.name, token


@step("Two tenants")
def two_tenants(t):
    t.contoso, t.ann_user, t.ann_token = make_tenant(t, "contoso", "Contoso", "Ann", "Smith", "seven-copper-kettles")
    t.ann = t.nobody.as_(t.ann_token)
    t.fabrikam, t.fay_user, t.fay_token = make_tenant(t, "fabrikam", "Fabrikam", "Fay", "Stone", "quiet-orchard-gate")
    t.fay = t.nobody.as_(t.fay_token)


@step("An account")
def an_account(t):
    """The operator imports a partner company; Ann becomes its manager."""
    account = account_pb2.Account(publisher_display_name="Contoso", legal_name="Contoso Ltd", country_code="GB")
    request = account_pb2.ImportAccountRequest(account=account, tenant=t.contoso, first_manager=t.ann_user)
    t.account = t.operator.of(Accounts).ImportAccount(request).name
    members = t.ann.of(Members).ListMembers(member_pb2.ListMembersRequest(parent=t.account)).members
    for member in members:
        print(member.display_name, [grant_pb2.AccountRole.Name(role) for role in member.rights.roles])
    expect(len(members) == 1, "an account begins with one member")


@step("A second tenant on the account")
def second_tenant(t):
    """Ann may manage the account's tenants; that Fay wants it too, Fay's token proves. Ann sees first whom she is about to let in."""
    request = tenant_association_pb2.AssociateTenantRequest(parent=t.account, tenant_admin_token=t.fay_token, validate_only=True)
    seen = t.ann.of(Associations).AssociateTenant(request)
    print("about to let in", seen.tenant_display_name, seen.domain)
    request = tenant_association_pb2.AssociateTenantRequest(parent=t.account, tenant_admin_token=t.fay_token)
    t.association = t.ann.of(Associations).AssociateTenant(request).name
    # As global admin of an associated tenant, Fay can add herself, without any role.
    t.fay.of(Members).AddMembers(member_pb2.AddMembersRequest(parent=t.account, principals=[t.fay_user]))
    t.fay.of(Accounts).GetAccount(account_pb2.GetAccountRequest(name=t.account))


@step("Two users")
def two_users(t):
    """A global admin needs an address for recovery."""
    users = t.ann.of(Users)
    bob = user_pb2.User(
        user_name="bob", given_name="Bob", family_name="Hill", directory_roles=[role_pb2.DIRECTORY_ROLE_GLOBAL_ADMIN]
    )
    with refused(StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_FIELDS) as told:
        users.CreateUser(user_pb2.CreateUserRequest(parent=t.contoso, user=bob))
    expect(told[0].fields == ["user.recovery_email"], told[0].fields)
    bob.recovery_email = "bob@mail.example"
    users.CreateUser(user_pb2.CreateUserRequest(parent=t.contoso, user=bob))
    dee = user_pb2.User(user_name="dee", given_name="Dee", family_name="Marsh")
    made = users.CreateUser(user_pb2.CreateUserRequest(parent=t.contoso, user=dee))
    t.dee_user, t.dee_password = made.user.name, made.temporary_password


# ---- rights


def dee_may(t):
    """What Dee may on the account, of three things that a page has buttons for."""
    return may(t.dee, t.account, "account.read", "offers.publish", "members.read")


@step("A developer, and what she may")
def a_developer(t):
    """She sees the account and manages its offers; its other members she doesn't see."""
    developer = grant_pb2.Rights(roles=[grant_pb2.ACCOUNT_ROLE_DEVELOPER])
    request = member_pb2.AddMembersRequest(parent=t.account, principals=[t.dee_user], rights=developer)
    t.member = t.ann.of(Members).AddMembers(request).members[0].name
    t.dee = t.nobody.as_(settle_in(t.nobody, "dee@contoso.partners.localhost", t.dee_password, "marble-window-fern"))
    now = dee_may(t)
    expect(now == ["account.read", "offers.publish"], now)
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_PERMISSION_MISSING) as told:
        t.dee.of(Members).ListMembers(member_pb2.ListMembersRequest(parent=t.account))
    expect(told[0].metadata["permission"] == "members.read", told[0].metadata)


@step("The role is taken away")
def role_is_taken_away(t):
    """Her token is still the same; what she may is asked anew at each call."""
    bare = member_pb2.UpdateMemberRequest(member=member_pb2.Member(name=t.member, rights=grant_pb2.Rights()))
    t.ann.of(Members).UpdateMembers(member_pb2.UpdateMembersRequest(parent=t.account, requests=[bare]))
    now = dee_may(t)
    expect(now == ["account.read"], now)
    t.ann.of(Members).RemoveMembers(member_pb2.RemoveMembersRequest(parent=t.account, names=[t.member]))
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_PERMISSION_MISSING):
        t.dee.of(Accounts).GetAccount(account_pb2.GetAccountRequest(name=t.account))


@step("A password is reset")
def password_is_reset(t):
    """A temporary password is shown this once, and her sessions end."""
    t.dee_password = t.ann.of(Users).ResetPassword(user_pb2.ResetPasswordRequest(name=t.dee_user)).temporary_password
    with refused(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_TOKEN_INVALID):
        who_am_i(t.dee)


# ---- lists and repetitions


@step("Pages")
def pages(t):
    """Filters are AIP-160; a page's token leads to the next one, until there is none."""
    request = user_pb2.ListUsersRequest(
        parent=t.contoso, page_size=2, order_by="display_name", filter='state = ACTIVE AND NOT display_name : "smi"'
    )
    found = []
    while True:
        page = t.ann.of(Users).ListUsers(request)
        found += [user.display_name for user in page.users]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    print(", ".join(found))
    expect(found == ["Bob Hill", "Dee Marsh"], found)
    with refused(StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_FIELDS):
        t.ann.of(Users).ListUsers(user_pb2.ListUsersRequest(parent=t.contoso, filter="shoe_size = 43"))


@step("The same request twice")
def same_request_twice(t):
    """Under one request_id a repetition changes nothing and gets the first answer, without its secret."""
    create = t.ann.of(Users).CreateUser
    eve = user_pb2.User(user_name="eve", given_name="Eve", family_name="Lake")
    request = user_pb2.CreateUserRequest(parent=t.contoso, user=eve, request_id=new_request_id())
    first, first_call = create.with_call(request)
    second, second_call = create.with_call(request)
    expect(not replayed(first_call) and replayed(second_call), "it is the second answer that was given before")
    expect(first.temporary_password and not second.temporary_password and second.secret_omitted, "the secret is shown once")
    expect(first.user == second.user, "both answers tell of the same user")
    t.eve_user, t.eve_password = first.user.name, first.temporary_password
    # Without a request_id of its own the call is another one.
    request.request_id = ""
    with refused(StatusCode.ALREADY_EXISTS, reasons.ERROR_REASON_USER_NAME_TAKEN):
        create(request)


# ---- services


@step("An internal service")
def internal_service(t):
    """It is an application of the operator's tenant with the role OPERATOR_SERVICE, and signs in with a key."""
    home = who_am_i(t.operator).tenant.name
    portal = application_pb2.Application(display_name="Portal")
    request = application_pb2.CreateApplicationRequest(parent=home, application=portal)
    made = t.operator.of(Applications).CreateApplication(request)
    t.portal_application, t.client_id = made.name, made.client_id
    roles = [staff_pb2.OPERATOR_ROLE_OPERATOR_SERVICE]
    t.operator.of(Staff).AssignOperatorRoles(staff_pb2.AssignOperatorRolesRequest(principal=t.portal_application, roles=roles))
    made = t.operator.of(Applications).CreateKey(application_pb2.CreateKeyRequest(parent=t.portal_application))
    t.key = made.key.name
    t.portal = t.nobody.as_(sign_in_by_key(t.nobody, t.client_id, made.secret))


@step("Decisions in a batch")
def decisions_in_a_batch(t):
    """Up to 1,000 in one call, each with the roles that it comes from."""
    checks = [
        access_pb2.AccessCheck(principal=t.ann_user, permission="offers.publish", resource=t.account),
        access_pb2.AccessCheck(principal=t.fay_user, permission="offers.publish", resource=t.account),
        access_pb2.AccessCheck(principal=t.dee_user, permission="account.read", resource=t.account),
    ]
    decisions = t.portal.of(Access).CheckAccess(access_pb2.CheckAccessRequest(checks=checks)).decisions
    for check, decision in zip(checks, decisions):
        print(check.principal, check.permission, decision.allowed, list(decision.because))
    expect([decision.allowed for decision in decisions] == [True, False, False], decisions)


@step("On behalf of a person")
def on_behalf(t):
    """By itself the service may do nothing with an account; for Ann, with her token beside its own, it may what she may."""
    members = member_pb2.ListMembersRequest(parent=t.account)
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_PERMISSION_MISSING):
        t.portal.of(Members).ListMembers(members)
    portal_for_ann = t.portal.on_behalf_of(t.ann_token, "192.0.2.7")
    portal_for_ann.of(Members).ListMembers(members)
    request = user_pb2.UpdateOwnContactRequest(name=t.ann_user, recovery_email="ann.smith@mail.example")
    portal_for_ann.of(Users).UpdateOwnContact(request)


# ---- audit and events


@step("What happened")
def what_happened(t):
    """The audit of the tenant, newest first, and whether its chain of hashes is whole."""
    audit = t.ann.of(Audit)
    request = audit_pb2.ListAuditEventsRequest(
        parent=t.contoso, page_size=10, filter='action = "entente.directory.v1.UserService/UpdateOwnContact"'
    )
    (event,) = audit.ListAuditEvents(request).audit_events
    print(event.create_time.ToDatetime(), event.actor, "via", event.via, event.action, event.outcome)
    expect((event.actor, event.via) == (t.ann_user, t.portal_application), "it names both")
    verdict = audit.VerifyAuditChain(audit_pb2.VerifyAuditChainRequest(parent=t.contoso))
    print(verdict.checked_count, "events checked")
    expect(verdict.intact, verdict.findings)


@step("Events for programs")
def events_for_programs(t):
    """Every event comes at least once, in order, and goes on from where a program left off: it keeps the cursor with its own work.

    The stream has no end of its own, so this one is left when all is seen that is waited for.
    """
    waited_for = ["entente.account.v1.MemberAdded", "entente.account.v1.MemberRemoved"]
    request = audit_pb2.WatchEventsRequest(parent=t.account, types=waited_for, resource=t.member)
    stream = t.ann.of(Events).WatchEvents(request, timeout=60)
    cursor = ""
    for message in stream:
        for event in message.events:
            print(event.create_time.ToDatetime(), event.type, event.resource)
            if waited_for and event.type == waited_for[0]:
                waited_for.pop(0)
        cursor = message.cursor
        if not waited_for:
            break
    stream.cancel()
    expect(cursor, "there is a cursor to go on from")


@step("Keys are changed without a gap")
def keys_are_changed(t):
    """The new key is in use before the old one goes: no moment without one. Tokens of the old one end with it."""
    applications = t.operator.of(Applications)
    made = applications.CreateKey(application_pb2.CreateKeyRequest(parent=t.portal_application))
    before, t.portal = t.portal, t.nobody.as_(sign_in_by_key(t.nobody, t.client_id, made.secret))
    applications.DeleteKey(application_pb2.DeleteKeyRequest(name=t.key))
    t.key = made.key.name
    who_am_i(t.portal)
    with refused(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_TOKEN_INVALID):
        who_am_i(before)
