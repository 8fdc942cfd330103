package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
	accountv1 "entente.dev/examples/go/gen/entente/account/v1"
)

// The operator imports a partner company; Ann becomes its manager.
func anAccount(ctx context.Context, t *tour) error {
	account, err := accountv1.NewAccountServiceClient(t.operator).ImportAccount(ctx, &accountv1.ImportAccountRequest{
		Account: &accountv1.Account{PublisherDisplayName: "Contoso", LegalName: "Contoso Ltd", CountryCode: "GB"},
		Tenant:  t.contoso, FirstManager: t.annUser,
	})
	if err != nil {
		return err
	}
	t.account = account.Name
	members, err := accountv1.NewMemberServiceClient(t.ann).ListMembers(ctx, &accountv1.ListMembersRequest{Parent: t.account})
	if err != nil {
		return err
	}
	for _, member := range members.Members {
		fmt.Println(member.DisplayName, member.Rights.Roles)
	}
	return expect(len(members.Members) == 1, "an account begins with one member")
}

// Ann may manage the account's tenants; that Fay wants it too, Fay's token proves. Ann sees first whom she is about to let in.
func secondTenant(ctx context.Context, t *tour) error {
	associations := accountv1.NewTenantAssociationServiceClient(t.ann)
	request := &accountv1.AssociateTenantRequest{Parent: t.account, TenantAdminToken: t.fayToken, ValidateOnly: true}
	seen, err := associations.AssociateTenant(ctx, request)
	if err != nil {
		return err
	}
	fmt.Println("about to let in", seen.TenantDisplayName, seen.Domain)
	request = &accountv1.AssociateTenantRequest{Parent: t.account, TenantAdminToken: t.fayToken}
	association, err := associations.AssociateTenant(ctx, request)
	if err != nil {
		return err
	}
	t.association = association.Name
	// As global admin of an associated tenant, Fay can add herself, without any role.
	_, err = accountv1.NewMemberServiceClient(t.fay).AddMembers(ctx,
		&accountv1.AddMembersRequest{Parent: t.account, Principals: []string{t.fayUser}})
	if err != nil {
		return err
	}
	_, err = accountv1.NewAccountServiceClient(t.fay).GetAccount(ctx, &accountv1.GetAccountRequest{Name: t.account})
	return err
}

// She sees the account and manages its offers; its other members she doesn't see.
func aDeveloper(ctx context.Context, t *tour) error {
	added, err := accountv1.NewMemberServiceClient(t.ann).AddMembers(ctx, &accountv1.AddMembersRequest{
		Parent: t.account, Principals: []string{t.deeUser}, Rights: roles(accessv1.AccountRole_ACCOUNT_ROLE_DEVELOPER),
	})
	if err != nil {
		return err
	}
	t.member = added.Members[0].Name
	token, err := settleIn(ctx, t.nobody, "dee@contoso.partners.localhost", t.deePassword, "marble-window-fern")
	if err != nil {
		return err
	}
	t.dee = t.nobody.As(token)
	if err := deeMay(ctx, t, "account.read", "offers.publish"); err != nil {
		return err
	}
	_, err = accountv1.NewMemberServiceClient(t.dee).ListMembers(ctx, &accountv1.ListMembersRequest{Parent: t.account})
	refusal, err := refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_PERMISSION_MISSING)
	if err != nil {
		return err
	}
	return expect(refusal.Metadata["permission"] == "members.read", "it says which: %v", refusal.Metadata)
}

// Her token is still the same; what she may is asked anew at each call.
func roleIsTakenAway(ctx context.Context, t *tour) error {
	members := accountv1.NewMemberServiceClient(t.ann)
	_, err := members.UpdateMembers(ctx, &accountv1.UpdateMembersRequest{
		Parent:   t.account,
		Requests: []*accountv1.UpdateMemberRequest{{Member: &accountv1.Member{Name: t.member, Rights: roles()}}},
	})
	if err != nil {
		return err
	}
	if err := deeMay(ctx, t, "account.read"); err != nil {
		return err
	}
	_, err = members.RemoveMembers(ctx, &accountv1.RemoveMembersRequest{Parent: t.account, Names: []string{t.member}})
	if err != nil {
		return err
	}
	_, err = accountv1.NewAccountServiceClient(t.dee).GetAccount(ctx, &accountv1.GetAccountRequest{Name: t.account})
	_, err = refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_PERMISSION_MISSING)
	return err
}

// deeMay holds what Dee may on the account, of three things that a page has buttons for, against what she ought to.
func deeMay(ctx context.Context, t *tour, ought ...string) error {
	now, err := may(ctx, t.dee, t.account, "account.read", "offers.publish", "members.read")
	if err != nil {
		return err
	}
	return expectSame(now, ought...)
}

// Its people are off the account with the next call.
func secondTenantGoes(ctx context.Context, t *tour) error {
	_, err := accountv1.NewTenantAssociationServiceClient(t.ann).RemoveTenant(ctx, &accountv1.RemoveTenantRequest{Name: t.association})
	if err != nil {
		return err
	}
	_, err = accountv1.NewAccountServiceClient(t.fay).GetAccount(ctx, &accountv1.GetAccountRequest{Name: t.account})
	_, err = refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_PERMISSION_MISSING)
	return err
}
