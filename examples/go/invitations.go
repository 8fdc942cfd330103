package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
	accountv1 "entente.dev/examples/go/gen/entente/account/v1"
	directoryv1 "entente.dev/examples/go/gen/entente/directory/v1"
)

// By one text of addresses. Eleven are too many: every bad one is named, and none is sent.
func threeAreInvited(ctx context.Context, t *tour) error {
	invitations := directoryv1.NewInvitationServiceClient(t.ann)
	var eleven []string
	for n := 1; n <= 9; n++ {
		eleven = append(eleven, fmt.Sprintf("a%d@x.example", n))
	}
	eleven = append(eleven, "nobody", "a9@x.example")
	_, err := invitations.InviteUsers(ctx, &directoryv1.InviteUsersRequest{
		Parent: t.contoso, EmailsText: strings.Join(eleven, ", "),
	})
	refusal, err := refused(err, codes.InvalidArgument, accessv1.ErrorReason_ERROR_REASON_INVALID_FIELDS)
	if err != nil {
		return err
	}
	// The tenth is no address; the eleventh is one too many, and stands there before.
	if err := expectSame(refusal.Fields(), "emails_text", "emails_text", "emails_text"); err != nil {
		return err
	}
	listed, err := invitations.ListInvitations(ctx, &directoryv1.ListInvitationsRequest{Parent: t.contoso})
	if err != nil {
		return err
	}
	if err := expect(len(listed.Invitations) == 0, "none was sent"); err != nil {
		return err
	}

	three := []string{"gil@mail.example", "fay@fabrikam.partners.localhost", "hal@mail.example"}
	made, err := invitations.InviteUsers(ctx, &directoryv1.InviteUsersRequest{
		Parent: t.contoso, EmailsText: strings.Join(three, "; "),
		Account: t.account, Rights: roles(accessv1.AccountRole_ACCOUNT_ROLE_DEVELOPER),
	})
	if err != nil {
		return err
	}
	var invited []string
	for _, invitation := range made.Invitations {
		invited = append(invited, invitation.Email)
		pending := invitation.State == directoryv1.InvitationState_INVITATION_STATE_PENDING
		if err := expect(pending, "nobody has accepted yet: %v", invitation); err != nil {
			return err
		}
	}
	return expectSame(invited, three...)
}

// Gil has no credential yet: accepting makes one, which is his wherever he is a guest. Fay has one, and accepts signed in with it.
func twoAccept(ctx context.Context, t *tour) error {
	if err := gilAccepts(ctx, t); err != nil {
		return err
	}
	link, err := t.mails.tokenFor(ctx, "fay@fabrikam.partners.localhost")
	if err != nil {
		return err
	}
	// Who has nothing but the link isn't Fay yet; the token stays good.
	_, err = directoryv1.NewInvitationServiceClient(t.nobody).AcceptInvitation(ctx, &directoryv1.AcceptInvitationRequest{Token: link})
	if _, err := refused(err, codes.FailedPrecondition, accessv1.ErrorReason_ERROR_REASON_SIGN_IN_AS_HOLDER); err != nil {
		return err
	}
	invitations := directoryv1.NewInvitationServiceClient(t.fay)
	accepted, err := invitations.AcceptInvitation(ctx, &directoryv1.AcceptInvitationRequest{Token: link})
	if err != nil {
		return err
	}
	guest := accepted.User
	if err := expect(guest.Kind == directoryv1.UserKind_USER_KIND_GUEST && guest.Home == t.fayUser, "%v", guest); err != nil {
		return err
	}
	me, err := whoAmI(ctx, t.fay)
	if err != nil {
		return err
	}
	choice := map[string]bool{}
	for _, tenant := range me.Tenants {
		choice[tenant.Name] = true
	}
	if err := expect(len(choice) == 2 && choice[t.contoso] && choice[t.fabrikam], "%v", choice); err != nil {
		return err
	}
	// A link is good once.
	_, err = invitations.AcceptInvitation(ctx, &directoryv1.AcceptInvitationRequest{Token: link})
	_, err = refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_LINK_INVALID)
	return err
}

func gilAccepts(ctx context.Context, t *tour) error {
	const email, password = "gil@mail.example", "amber-tunnel-kite"
	link, err := t.mails.tokenFor(ctx, email)
	if err != nil {
		return err
	}
	accepted, err := directoryv1.NewInvitationServiceClient(t.nobody).AcceptInvitation(ctx,
		&directoryv1.AcceptInvitationRequest{Token: link, GivenName: "Gil", FamilyName: "Moss", Password: password})
	if err != nil {
		return err
	}
	promised := proto.Equal(accepted.Given, roles(accessv1.AccountRole_ACCOUNT_ROLE_DEVELOPER))
	if err := expect(accepted.JoinedAccount && promised, "he holds what the invitation promised: %v", accepted); err != nil {
		return err
	}
	token, err := signIn(ctx, t.nobody, email, password)
	if err != nil {
		return err
	}
	tokens, err := directoryv1.NewSessionServiceClient(t.nobody.As(token)).SwitchTenant(ctx,
		&directoryv1.SwitchTenantRequest{Tenant: t.contoso})
	if err != nil {
		return err
	}
	gil := t.nobody.As(tokens.AccessToken)
	_, err = accountv1.NewAccountServiceClient(gil).GetAccount(ctx, &accountv1.GetAccountRequest{Name: t.account})
	return err
}

// Ida signs up, proves her address, and is invited like anybody. The answer to a sign-up never tells whether an address is known.
func personWithoutATenant(ctx context.Context, t *tour) error {
	const email, password = "ida@mail.example", "silver-meadow-coin"
	identities := directoryv1.NewIdentityServiceClient(t.nobody)
	_, err := identities.SignUp(ctx,
		&directoryv1.SignUpRequest{Email: email, GivenName: "Ida", FamilyName: "Berg", Password: password})
	if err != nil {
		return err
	}
	_, err = signIn(ctx, t.nobody, email, password)
	if _, err := refused(err, codes.Unauthenticated, accessv1.ErrorReason_ERROR_REASON_SIGN_IN_FAILED); err != nil {
		return err
	}
	link, err := t.mails.tokenFor(ctx, email)
	if err != nil {
		return err
	}
	identity, err := identities.ConfirmIdentity(ctx, &directoryv1.ConfirmIdentityRequest{Token: link, Password: password})
	if err != nil {
		return err
	}
	t.idaIdentity = identity.Name
	token, err := signIn(ctx, t.nobody, email, password)
	if err != nil {
		return err
	}
	ida := t.nobody.As(token)

	_, err = directoryv1.NewInvitationServiceClient(t.ann).InviteUsers(ctx,
		&directoryv1.InviteUsersRequest{Parent: t.contoso, Emails: []string{email}})
	if err != nil {
		return err
	}
	if link, err = t.mails.tokenFor(ctx, email); err != nil {
		return err
	}
	_, err = directoryv1.NewInvitationServiceClient(ida).AcceptInvitation(ctx, &directoryv1.AcceptInvitationRequest{Token: link})
	if err != nil {
		return err
	}
	me, err := whoAmI(ctx, ida)
	if err != nil {
		return err
	}
	if err := expect(me.Principal == t.idaIdentity, "she is still herself: %v", me); err != nil {
		return err
	}
	return expect(len(me.Tenants) == 1 && me.Tenants[0].Name == t.contoso, "and may switch to where she is a guest: %v", me)
}

// It comes back by a link to the address on file; the answer is the same for a name that doesn't exist.
func forgottenPassword(ctx context.Context, t *tour) error {
	const email, password = "ida@mail.example", "copper-bridge-snow"
	sessions := directoryv1.NewSessionServiceClient(t.nobody)
	known, err := sessions.StartPasswordRecovery(ctx, &directoryv1.StartPasswordRecoveryRequest{SignInName: email})
	if err != nil {
		return err
	}
	unknown, err := sessions.StartPasswordRecovery(ctx,
		&directoryv1.StartPasswordRecoveryRequest{SignInName: "nobody@contoso.partners.localhost"})
	if err != nil {
		return err
	}
	if err := expect(proto.Equal(known, unknown), "who asks learns nothing"); err != nil {
		return err
	}
	link, err := t.mails.tokenFor(ctx, email)
	if err != nil {
		return err
	}
	_, err = sessions.CompletePasswordRecovery(ctx,
		&directoryv1.CompletePasswordRecoveryRequest{Token: link, NewPassword: password})
	if err != nil {
		return err
	}
	_, err = signIn(ctx, t.nobody, email, "silver-meadow-coin")
	if _, err := refused(err, codes.Unauthenticated, accessv1.ErrorReason_ERROR_REASON_SIGN_IN_FAILED); err != nil {
		return err
	}
	token, err := signIn(ctx, t.nobody, email, password)
	t.ida = t.nobody.As(token)
	return err
}
