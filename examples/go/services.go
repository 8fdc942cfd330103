package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
	accountv1 "entente.dev/examples/go/gen/entente/account/v1"
	directoryv1 "entente.dev/examples/go/gen/entente/directory/v1"
	operatorv1 "entente.dev/examples/go/gen/entente/operator/v1"
)

// It is an application of the operator's tenant with the role OPERATOR_SERVICE, and signs in with a key.
func internalService(ctx context.Context, t *tour) error {
	me, err := whoAmI(ctx, t.operator)
	if err != nil {
		return err
	}
	applications := directoryv1.NewApplicationServiceClient(t.operator)
	application, err := applications.CreateApplication(ctx, &directoryv1.CreateApplicationRequest{
		Parent: me.Tenant.Name, Application: &directoryv1.Application{DisplayName: "Portal"},
	})
	if err != nil {
		return err
	}
	t.portalApplication, t.clientID = application.Name, application.ClientId
	_, err = operatorv1.NewStaffServiceClient(t.operator).AssignOperatorRoles(ctx, &operatorv1.AssignOperatorRolesRequest{
		Principal: t.portalApplication, Roles: []operatorv1.OperatorRole{operatorv1.OperatorRole_OPERATOR_ROLE_OPERATOR_SERVICE},
	})
	if err != nil {
		return err
	}
	made, err := applications.CreateKey(ctx, &directoryv1.CreateKeyRequest{Parent: t.portalApplication})
	if err != nil {
		return err
	}
	t.key, t.secret = made.Key.Name, made.Secret
	token, err := signInByKey(ctx, t.nobody, t.clientID, t.secret)
	t.portal = t.nobody.As(token)
	return err
}

// Up to 1,000 in one call, each with the roles that it comes from.
func decisionsInABatch(ctx context.Context, t *tour) error {
	checks := []*accessv1.AccessCheck{
		{Principal: t.annUser, Permission: "offers.publish", Resource: t.account},
		{Principal: t.fayUser, Permission: "offers.publish", Resource: t.account},
		{Principal: t.deeUser, Permission: "account.read", Resource: t.account},
	}
	answer, err := accessv1.NewAccessServiceClient(t.portal).CheckAccess(ctx, &accessv1.CheckAccessRequest{Checks: checks})
	if err != nil {
		return err
	}
	for i, ought := range []bool{true, false, false} {
		decision := answer.Decisions[i]
		fmt.Println(checks[i].Principal, checks[i].Permission, decision.Allowed, decision.Because)
		if err := expect(decision.Allowed == ought, "decision %d", i); err != nil {
			return err
		}
	}
	return nil
}

// By itself the service may do nothing with an account; for Ann, with her token beside its own, it may what she may.
func onBehalf(ctx context.Context, t *tour) error {
	_, err := accountv1.NewMemberServiceClient(t.portal).ListMembers(ctx, &accountv1.ListMembersRequest{Parent: t.account})
	if _, err := refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_PERMISSION_MISSING); err != nil {
		return err
	}
	portalForAnn := t.portal.OnBehalfOf(t.annToken, "192.0.2.7")
	_, err = accountv1.NewMemberServiceClient(portalForAnn).ListMembers(ctx, &accountv1.ListMembersRequest{Parent: t.account})
	if err != nil {
		return err
	}
	_, err = directoryv1.NewUserServiceClient(portalForAnn).UpdateOwnContact(ctx,
		&directoryv1.UpdateOwnContactRequest{Name: t.annUser, RecoveryEmail: "ann.smith@mail.example"})
	return err
}

// The new key is in use before the old one goes: no moment without one. Tokens of the old one end with it.
func keysAreChanged(ctx context.Context, t *tour) error {
	applications := directoryv1.NewApplicationServiceClient(t.operator)
	made, err := applications.CreateKey(ctx, &directoryv1.CreateKeyRequest{Parent: t.portalApplication})
	if err != nil {
		return err
	}
	token, err := signInByKey(ctx, t.nobody, t.clientID, made.Secret)
	if err != nil {
		return err
	}
	before, now := t.portal, t.nobody.As(token)
	if _, err := applications.DeleteKey(ctx, &directoryv1.DeleteKeyRequest{Name: t.key}); err != nil {
		return err
	}
	if _, err := whoAmI(ctx, now); err != nil {
		return err
	}
	t.portal, t.key, t.secret = now, made.Key.Name, made.Secret
	_, err = whoAmI(ctx, before)
	_, err = refused(err, codes.Unauthenticated, accessv1.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	return err
}
