"""The tour's second half: guests, groups, personal identities, ways back in, a local directory, and the end of a tenant.

Links come by mail: `t.mails` waits for one and gives its token, which is what a portal's page takes out of the link.
"""

from grpc import StatusCode

from client import new_request_id
from entente.access.v1 import grant_pb2, reason_pb2 as reasons
from entente.account.v1 import account_pb2, member_pb2, tenant_association_pb2
from entente.directory.v1 import (
    application_pb2,
    group_pb2,
    identity_pb2,
    invitation_pb2,
    role_pb2,
    session_pb2,
    synchronization_pb2,
    tenant_pb2,
    user_pb2,
)
from services import Accounts, Applications, Associations, Groups, Identities, Invitations, Members, Sessions, Tenants, Users
from steps import expect, may, refused, settle_in, sign_in, sign_in_by_key, step, who_am_i

DEVELOPER = grant_pb2.Rights(roles=[grant_pb2.ACCOUNT_ROLE_DEVELOPER])

# ---- guests


@step("Three people are invited")
def three_are_invited(t):
    """By one text of addresses. Eleven are too many: every bad one is named, and none is sent."""
    invitations = t.ann.of(Invitations)
    eleven = [f"a{n}@x.example" for n in range(1, 10)] + ["nobody", "a9@x.example"]
    with refused(StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_FIELDS) as told:
        invitations.InviteUsers(invitation_pb2.InviteUsersRequest(parent=t.contoso, emails_text=", ".join(eleven)))
    # The tenth is no address; the eleventh is one too many, and stands there before.
    expect(told[0].fields == ["emails_text"] * 3, told[0].fields)
    listed = invitations.ListInvitations(invitation_pb2.ListInvitationsRequest(parent=t.contoso)).invitations
    expect(not listed, "none was sent")

    three = ["gil@mail.example", "fay@fabrikam.partners.localhost", "hal@mail.example"]
    request = invitation_pb2.InviteUsersRequest(
        parent=t.contoso, emails_text="; ".join(three), account=t.account, rights=DEVELOPER
    )
    made = invitations.InviteUsers(request).invitations
    expect([invitation.email for invitation in made] == three, made)
    pending = invitation_pb2.INVITATION_STATE_PENDING
    expect(all(invitation.state == pending for invitation in made), "nobody has accepted yet")


@step("Two of them accept")
def two_accept(t):
    """Gil has no credential yet: accepting makes one, which is his wherever he is a guest. Fay has one, and accepts signed in with it."""
    password = "amber-tunnel-kite"
    request = invitation_pb2.AcceptInvitationRequest(
        token=t.mails.token_for("gil@mail.example"), given_name="Gil", family_name="Moss", password=password
    )
    accepted = t.nobody.of(Invitations).AcceptInvitation(request)
    expect(accepted.joined_account and accepted.given == DEVELOPER, "he holds what the invitation promised")
    at_home = t.nobody.as_(sign_in(t.nobody, "gil@mail.example", password))
    tokens = at_home.of(Sessions).SwitchTenant(session_pb2.SwitchTenantRequest(tenant=t.contoso))
    gil = t.nobody.as_(tokens.access_token)
    gil.of(Accounts).GetAccount(account_pb2.GetAccountRequest(name=t.account))

    # Who has nothing but the link isn't Fay yet; the token stays good.
    link = t.mails.token_for("fay@fabrikam.partners.localhost")
    with refused(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_SIGN_IN_AS_HOLDER):
        t.nobody.of(Invitations).AcceptInvitation(invitation_pb2.AcceptInvitationRequest(token=link))
    guest = t.fay.of(Invitations).AcceptInvitation(invitation_pb2.AcceptInvitationRequest(token=link)).user
    expect((guest.kind, guest.home) == (user_pb2.USER_KIND_GUEST, t.fay_user), guest)
    choice = {tenant.name for tenant in who_am_i(t.fay).tenants}
    expect(choice == {t.contoso, t.fabrikam}, choice)
    # A link is good once.
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_LINK_INVALID):
        t.fay.of(Invitations).AcceptInvitation(invitation_pb2.AcceptInvitationRequest(token=link))


# ---- groups and programs


@step("A group of two")
def group_of_two(t):
    """Its members may what the group may, until they leave it: the next call of who has left is refused."""
    request = group_pb2.CreateGroupRequest(
        parent=t.contoso,
        group=group_pb2.Group(display_name="Web shop"),
        members=[t.dee_user, t.eve_user],
        memberships=[user_pb2.NewMembership(account=t.account, rights=DEVELOPER)],
    )
    group = t.ann.of(Groups).CreateGroup(request)
    expect(group.member_count == 2, group)
    t.eve = t.nobody.as_(settle_in(t.nobody, "eve@contoso.partners.localhost", t.eve_password, "plain-walnut-ferry"))
    now = may(t.eve, t.account, "account.read", "offers.publish")
    expect(now == ["account.read", "offers.publish"], now)
    request = group_pb2.RemoveGroupMembersRequest(parent=group.name, users=[t.eve_user])
    losses = t.ann.of(Groups).RemoveGroupMembers(request).losses
    expect([lost.rights for lost in losses.by_group] == [DEVELOPER], losses)
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_PERMISSION_MISSING):
        t.eve.of(Accounts).GetAccount(account_pb2.GetAccountRequest(name=t.account))


def make_program(t, admin, tenant, display_name):
    """An application of a tenant, signed in with a key; gives its name, the key's, and who calls as it."""
    applications = admin.of(Applications)
    application = application_pb2.Application(display_name=display_name)
    made = applications.CreateApplication(application_pb2.CreateApplicationRequest(parent=tenant, application=application))
    key = applications.CreateKey(application_pb2.CreateKeyRequest(parent=made.name))
    return made.name, key.key.name, t.nobody.as_(sign_in_by_key(t.nobody, made.client_id, key.secret))


@step("A program")
def a_program(t):
    """It signs in with a key. Without the key its tokens are worth nothing from the next call on."""
    name, key, feed = make_program(t, t.ann, t.contoso, "Stock feed")
    expect(who_am_i(feed).principal == name, "it is the application")
    t.ann.of(Applications).DeleteKey(application_pb2.DeleteKeyRequest(name=key))
    with refused(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_TOKEN_INVALID):
        who_am_i(feed)


# ---- people outside, and ways back in


@step("A person without a tenant")
def person_without_a_tenant(t):
    """Ida signs up, proves her address, and is invited like anybody. The answer to a sign-up never tells whether an address is known."""
    email, password = "ida@mail.example", "silver-meadow-coin"
    request = identity_pb2.SignUpRequest(email=email, given_name="Ida", family_name="Berg", password=password)
    t.nobody.of(Identities).SignUp(request)
    with refused(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_SIGN_IN_FAILED):
        sign_in(t.nobody, email, password)
    request = identity_pb2.ConfirmIdentityRequest(token=t.mails.token_for(email), password=password)
    t.ida_identity = t.nobody.of(Identities).ConfirmIdentity(request).name
    ida = t.nobody.as_(sign_in(t.nobody, email, password))
    t.ann.of(Invitations).InviteUsers(invitation_pb2.InviteUsersRequest(parent=t.contoso, emails=[email]))
    ida.of(Invitations).AcceptInvitation(invitation_pb2.AcceptInvitationRequest(token=t.mails.token_for(email)))
    me = who_am_i(ida)
    expect(me.principal == t.ida_identity, "she is still herself")
    expect([tenant.name for tenant in me.tenants] == [t.contoso], "and may switch to where she is a guest")


@step("A forgotten password")
def forgotten_password(t):
    """It comes back by a link to the address on file; the answer is the same for a name that doesn't exist."""
    email, password = "ida@mail.example", "copper-bridge-snow"
    sessions = t.nobody.of(Sessions)
    known, unknown = (
        sessions.StartPasswordRecovery(session_pb2.StartPasswordRecoveryRequest(sign_in_name=name))
        for name in (email, "nobody@contoso.partners.localhost")
    )
    expect(known == unknown, "who asks learns nothing")
    request = session_pb2.CompletePasswordRecoveryRequest(token=t.mails.token_for(email), new_password=password)
    sessions.CompletePasswordRecovery(request)
    with refused(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_SIGN_IN_FAILED):
        sign_in(t.nobody, email, "silver-meadow-coin")
    t.ida = t.nobody.as_(sign_in(t.nobody, email, password))


@step("A helpdesk admin")
def helpdesk_admin(t):
    """Eve resets people who hold nothing, and nobody else."""
    roles = [role_pb2.DIRECTORY_ROLE_HELPDESK_ADMIN]
    t.ann.of(Users).AssignDirectoryRoles(user_pb2.AssignDirectoryRolesRequest(name=t.eve_user, directory_roles=roles))
    zoe = user_pb2.User(user_name="zoe", given_name="Zoe", family_name="Park")
    t.zoe_user = t.ann.of(Users).CreateUser(user_pb2.CreateUserRequest(parent=t.contoso, user=zoe)).user.name
    reset = t.eve.of(Users).ResetPassword(user_pb2.ResetPasswordRequest(name=t.zoe_user))
    expect(reset.temporary_password, "it is shown this once")
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_PERMISSION_MISSING):
        t.eve.of(Users).ResetPassword(user_pb2.ResetPasswordRequest(name=t.ann_user))


@step("Rights that sleep")
def rights_that_sleep(t):
    """Ida owns an account and gives FINANCE to two people. When an admin resets one of them, what touches money sleeps for 72 hours, or until
    somebody wakes it who holds it too. So nobody comes to the money by a password that they set for another."""
    account = account_pb2.Account(publisher_display_name="Berg Goods", legal_name="Berg Goods Ltd", country_code="GB")
    request = account_pb2.ImportAccountRequest(account=account, tenant=t.contoso, first_manager=t.ann_user, owner=t.ida_identity)
    shop = t.operator.of(Accounts).ImportAccount(request).name
    request = member_pb2.AddMembersRequest(parent=shop, principals=[t.dee_user, t.zoe_user])
    for member in t.ann.of(Members).AddMembers(request).members:
        t.ida.of(Members).GrantFinance(member_pb2.GrantFinanceRequest(name=member.name))

    reset = t.ann.of(Users).ResetPassword(user_pb2.ResetPasswordRequest(name=t.dee_user))
    t.dee = t.nobody.as_(settle_in(t.nobody, reset.user.sign_in_name, reset.temporary_password, "hollow-cedar-stamp"))
    asked = ["account.read", "payouts.settings.read"]
    now = may(t.dee, shop, *asked)
    expect(now == ["account.read"], now)
    wake = user_pb2.WakeRightsRequest(name=t.dee_user)
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_NOTHING_TO_WAKE):
        t.ann.of(Users).WakeRights(wake)
    t.ida.of(Users).WakeRights(wake)
    now = may(t.dee, shop, *asked)
    expect(now == asked, now)


@step("A user is deleted and restored")
def deleted_and_restored(t):
    """With a new temporary password and nothing else."""
    losses = t.ann.of(Users).DeleteUser(user_pb2.DeleteUserRequest(name=t.eve_user)).losses
    expect(losses.directory_roles == [role_pb2.DIRECTORY_ROLE_HELPDESK_ADMIN], losses)
    with refused(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_TOKEN_INVALID):
        who_am_i(t.eve)
    restored = t.ann.of(Users).UndeleteUser(user_pb2.UndeleteUserRequest(name=t.eve_user))
    expect(restored.temporary_password and not restored.user.directory_roles, restored.user)


# ---- a tenant that comes from elsewhere, and goes


def staff(tenant, run):
    """A thousand people of a local directory, in the messages of a stream: 500 entries each, counted from 1."""
    for sequence in 1, 2:
        yield tenant_pb2.SyncDirectoryRequest(
            parent=tenant,
            request_id=run,
            sequence=sequence,
            entries=[
                synchronization_pb2.DirectoryEntry(
                    external_id=f"staff-{n}",
                    user=synchronization_pb2.DirectoryUser(user_name=f"staff{n}", given_name="Number", family_name=str(n)),
                )
                for n in range(500 * (sequence - 1), 500 * sequence)
            ],
        )


@step("A local directory")
def local_directory(t):
    """It fills Fabrikam from now on, by an agent that streams it. Nobody is made there by hand then; who came is assigned like everybody."""
    agent_name, _, agent = make_program(t, t.fay, t.fabrikam, "Directory agent")
    request = tenant_pb2.SetDirectorySynchronizationRequest(name=t.fabrikam, enabled=True, agent=agent_name)
    t.fay.of(Tenants).SetDirectorySynchronization(request)
    run = new_request_id()
    told = agent.of(Tenants).SyncDirectory(staff(t.fabrikam, run))
    print(told.synchronization.upserted_count, "entries taken over")
    expect((told.synchronization.last_sequence, told.synchronization.upserted_count) == (2, 1000), told.synchronization)
    expect(not told.faults, told.faults)
    # After a broken stream the same may simply come again: each message is done once.
    again = agent.of(Tenants).SyncDirectory(staff(t.fabrikam, run))
    expect(again == told, again)

    gus = user_pb2.User(user_name="gus", given_name="Gus", family_name="Field")
    with refused(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_DIRECTORY_SYNCHRONIZED):
        t.fay.of(Users).CreateUser(user_pb2.CreateUserRequest(parent=t.fabrikam, user=gus))
    request = user_pb2.ListUsersRequest(parent=t.fabrikam, filter='user_name = "staff742"')
    (one,) = t.fay.of(Users).ListUsers(request).users
    expect(one.synchronized, one)
    t.fay.of(Members).AddMembers(member_pb2.AddMembersRequest(parent=t.account, principals=[one.name]))


@step("The second tenant goes")
def second_tenant_goes(t):
    """Its people are off the account with the next call."""
    t.ann.of(Associations).RemoveTenant(tenant_association_pb2.RemoveTenantRequest(name=t.association))
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_PERMISSION_MISSING):
        t.fay.of(Accounts).GetAccount(account_pb2.GetAccountRequest(name=t.account))


@step("It is deleted and brought back")
def deleted_and_brought_back(t):
    """Everybody of it is out; whoever has the link that its global admins got brings it back within 30 days."""
    # A deletion wants a sign-in of the last ten minutes.
    name, password = "fay@fabrikam.partners.localhost", "quiet-orchard-gate"
    t.fay = t.nobody.as_(sign_in(t.nobody, name, password))
    losses = t.fay.of(Tenants).DeleteTenant(tenant_pb2.DeleteTenantRequest(name=t.fabrikam)).losses
    expect((losses.user_count, losses.guest_elsewhere_count) == (1001, 1), losses)
    with refused(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_TOKEN_INVALID):
        who_am_i(t.fay)
    request = tenant_pb2.UndeleteTenantRequest(token=t.mails.token_for("fay@mail.example"))
    t.nobody.of(Tenants).UndeleteTenant(request)
    me = who_am_i(t.nobody.as_(sign_in(t.nobody, name, password)))
    expect((me.principal, me.tenant.state) == (t.fay_user, tenant_pb2.TENANT_STATE_ACTIVE), me)
    expect(role_pb2.DIRECTORY_ROLE_GLOBAL_ADMIN in me.directory_roles, me)
