package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"entente.dev/examples/go/entente"
	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
	accountv1 "entente.dev/examples/go/gen/entente/account/v1"
	directoryv1 "entente.dev/examples/go/gen/entente/directory/v1"
)

// Its members may what the group may, until they leave it: the next call of who has left is refused.
func groupOfTwo(ctx context.Context, t *tour) error {
	groups := directoryv1.NewGroupServiceClient(t.ann)
	developer := roles(accessv1.AccountRole_ACCOUNT_ROLE_DEVELOPER)
	group, err := groups.CreateGroup(ctx, &directoryv1.CreateGroupRequest{
		Parent: t.contoso, Group: &directoryv1.Group{DisplayName: "Web shop"},
		Members:     []string{t.deeUser, t.eveUser},
		Memberships: []*directoryv1.NewMembership{{Account: t.account, Rights: developer}},
	})
	if err != nil {
		return err
	}
	if err := expect(group.MemberCount == 2, "%v", group); err != nil {
		return err
	}
	token, err := settleIn(ctx, t.nobody, "eve@contoso.partners.localhost", t.evePassword, "plain-walnut-ferry")
	if err != nil {
		return err
	}
	t.eve = t.nobody.As(token)
	now, err := may(ctx, t.eve, t.account, "account.read", "offers.publish")
	if err != nil {
		return err
	}
	if err := expectSame(now, "account.read", "offers.publish"); err != nil {
		return err
	}
	left, err := groups.RemoveGroupMembers(ctx, &directoryv1.RemoveGroupMembersRequest{Parent: group.Name, Users: []string{t.eveUser}})
	if err != nil {
		return err
	}
	lost := left.Losses.GetByGroup()
	if err := expect(len(lost) == 1 && proto.Equal(lost[0].Rights, developer), "%v", lost); err != nil {
		return err
	}
	_, err = accountv1.NewAccountServiceClient(t.eve).GetAccount(ctx, &accountv1.GetAccountRequest{Name: t.account})
	_, err = refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_PERMISSION_MISSING)
	return err
}

// A program is an application of a tenant, signed in with a key.
type program struct {
	caller    *entente.Caller
	name, key string // tenants/…/applications/…, and …/keys/…
}

func makeProgram(ctx context.Context, t *tour, admin *entente.Caller, tenant, displayName string) (*program, error) {
	applications := directoryv1.NewApplicationServiceClient(admin)
	application, err := applications.CreateApplication(ctx, &directoryv1.CreateApplicationRequest{
		Parent: tenant, Application: &directoryv1.Application{DisplayName: displayName},
	})
	if err != nil {
		return nil, err
	}
	made, err := applications.CreateKey(ctx, &directoryv1.CreateKeyRequest{Parent: application.Name})
	if err != nil {
		return nil, err
	}
	token, err := signInByKey(ctx, t.nobody, application.ClientId, made.Secret)
	return &program{caller: t.nobody.As(token), name: application.Name, key: made.Key.Name}, err
}

// It signs in with a key. Without the key its tokens are worth nothing from the next call on.
func aProgram(ctx context.Context, t *tour) error {
	feed, err := makeProgram(ctx, t, t.ann, t.contoso, "Stock feed")
	if err != nil {
		return err
	}
	me, err := whoAmI(ctx, feed.caller)
	if err != nil {
		return err
	}
	if err := expect(me.Principal == feed.name, "it is the application: %v", me); err != nil {
		return err
	}
	_, err = directoryv1.NewApplicationServiceClient(t.ann).DeleteKey(ctx, &directoryv1.DeleteKeyRequest{Name: feed.key})
	if err != nil {
		return err
	}
	_, err = whoAmI(ctx, feed.caller)
	_, err = refused(err, codes.Unauthenticated, accessv1.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	return err
}

// Eve resets people who hold nothing, and nobody else.
func helpdeskAdmin(ctx context.Context, t *tour) error {
	users := directoryv1.NewUserServiceClient(t.ann)
	_, err := users.AssignDirectoryRoles(ctx, &directoryv1.AssignDirectoryRolesRequest{
		Name: t.eveUser, DirectoryRoles: []directoryv1.DirectoryRole{directoryv1.DirectoryRole_DIRECTORY_ROLE_HELPDESK_ADMIN},
	})
	if err != nil {
		return err
	}
	zoe := &directoryv1.User{UserName: "zoe", GivenName: "Zoe", FamilyName: "Park"}
	made, err := users.CreateUser(ctx, &directoryv1.CreateUserRequest{Parent: t.contoso, User: zoe})
	if err != nil {
		return err
	}
	t.zoeUser = made.User.Name
	users = directoryv1.NewUserServiceClient(t.eve)
	reset, err := users.ResetPassword(ctx, &directoryv1.ResetPasswordRequest{Name: t.zoeUser})
	if err != nil {
		return err
	}
	if err := expect(reset.TemporaryPassword != "", "it is shown this once"); err != nil {
		return err
	}
	_, err = users.ResetPassword(ctx, &directoryv1.ResetPasswordRequest{Name: t.annUser})
	_, err = refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_PERMISSION_MISSING)
	return err
}

// Ida owns an account and gives FINANCE to two people. When an admin resets one of them, what touches money sleeps for 72 hours, or until somebody
// wakes it who holds it too. So nobody comes to the money by a password that they set for another.
func rightsThatSleep(ctx context.Context, t *tour) error {
	shop, err := shopWithFinance(ctx, t)
	if err != nil {
		return err
	}
	users := directoryv1.NewUserServiceClient(t.ann)
	reset, err := users.ResetPassword(ctx, &directoryv1.ResetPasswordRequest{Name: t.deeUser})
	if err != nil {
		return err
	}
	token, err := settleIn(ctx, t.nobody, reset.User.SignInName, reset.TemporaryPassword, "hollow-cedar-stamp")
	if err != nil {
		return err
	}
	t.dee = t.nobody.As(token)
	asked := []string{"account.read", "payouts.settings.read"}
	now, err := may(ctx, t.dee, shop, asked...)
	if err != nil {
		return err
	}
	if err := expectSame(now, "account.read"); err != nil {
		return err
	}
	_, err = users.WakeRights(ctx, &directoryv1.WakeRightsRequest{Name: t.deeUser})
	if _, err := refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_NOTHING_TO_WAKE); err != nil {
		return err
	}
	_, err = directoryv1.NewUserServiceClient(t.ida).WakeRights(ctx, &directoryv1.WakeRightsRequest{Name: t.deeUser})
	if err != nil {
		return err
	}
	if now, err = may(ctx, t.dee, shop, asked...); err != nil {
		return err
	}
	return expectSame(now, asked...)
}

// shopWithFinance makes an account of Ida's where Dee and Zoe hold FINANCE.
func shopWithFinance(ctx context.Context, t *tour) (string, error) {
	shop, err := accountv1.NewAccountServiceClient(t.operator).ImportAccount(ctx, &accountv1.ImportAccountRequest{
		Account: &accountv1.Account{PublisherDisplayName: "Berg Goods", LegalName: "Berg Goods Ltd", CountryCode: "GB"},
		Tenant:  t.contoso, FirstManager: t.annUser, Owner: t.idaIdentity,
	})
	if err != nil {
		return "", err
	}
	added, err := accountv1.NewMemberServiceClient(t.ann).AddMembers(ctx,
		&accountv1.AddMembersRequest{Parent: shop.Name, Principals: []string{t.deeUser, t.zoeUser}})
	if err != nil {
		return "", err
	}
	for _, member := range added.Members {
		_, err := accountv1.NewMemberServiceClient(t.ida).GrantFinance(ctx, &accountv1.GrantFinanceRequest{Name: member.Name})
		if err != nil {
			return "", err
		}
	}
	return shop.Name, nil
}

// With a new temporary password and nothing else.
func deletedAndRestored(ctx context.Context, t *tour) error {
	users := directoryv1.NewUserServiceClient(t.ann)
	deleted, err := users.DeleteUser(ctx, &directoryv1.DeleteUserRequest{Name: t.eveUser})
	if err != nil {
		return err
	}
	lost := deleted.Losses.GetDirectoryRoles()
	helpdesk := len(lost) == 1 && lost[0] == directoryv1.DirectoryRole_DIRECTORY_ROLE_HELPDESK_ADMIN
	if err := expect(helpdesk, "%v", lost); err != nil {
		return err
	}
	_, err = whoAmI(ctx, t.eve)
	if _, err := refused(err, codes.Unauthenticated, accessv1.ErrorReason_ERROR_REASON_TOKEN_INVALID); err != nil {
		return err
	}
	restored, err := users.UndeleteUser(ctx, &directoryv1.UndeleteUserRequest{Name: t.eveUser})
	if err != nil {
		return err
	}
	return expect(restored.TemporaryPassword != "" && len(restored.User.DirectoryRoles) == 0, "%v", restored.User)
}
