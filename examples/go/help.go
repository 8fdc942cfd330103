package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"entente.dev/examples/go/entente"
	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
	directoryv1 "entente.dev/examples/go/gen/entente/directory/v1"
)

// signIn gives an access token, good for 15 minutes.
func signIn(ctx context.Context, nobody *entente.Caller, name, password string) (string, error) {
	tokens, err := directoryv1.NewSessionServiceClient(nobody).SignIn(ctx, &directoryv1.SignInRequest{
		Credential: &directoryv1.SignInRequest_Password{
			Password: &directoryv1.PasswordCredential{SignInName: name, Password: password},
		},
	})
	return tokens.GetAccessToken(), err
}

// settleIn signs in with a temporary password and chooses another; the tokens from before are good for nothing else.
func settleIn(ctx context.Context, nobody *entente.Caller, name, temporary, password string) (string, error) {
	token, err := signIn(ctx, nobody, name, temporary)
	if err != nil {
		return "", err
	}
	changed, err := directoryv1.NewSessionServiceClient(nobody.As(token)).ChangePassword(ctx,
		&directoryv1.ChangePasswordRequest{OldPassword: temporary, NewPassword: password})
	return changed.GetTokens().GetAccessToken(), err
}

// signInByKey is how applications sign in.
func signInByKey(ctx context.Context, nobody *entente.Caller, clientID, secret string) (string, error) {
	tokens, err := directoryv1.NewSessionServiceClient(nobody).SignIn(ctx, &directoryv1.SignInRequest{
		Credential: &directoryv1.SignInRequest_Key{
			Key: &directoryv1.KeyCredential{ClientId: clientID, Secret: secret},
		},
	})
	return tokens.GetAccessToken(), err
}

// refused takes a call that has to fail, and says why it did. With another outcome the tour ends.
func refused(err error, code codes.Code, reason accessv1.ErrorReason) (*entente.Refusal, error) {
	if err == nil {
		return nil, errors.New("this should have been refused")
	}
	refusal := entente.RefusalOf(err)
	if refusal == nil || refusal.Code != code || refusal.Reason != reason {
		return nil, fmt.Errorf("refused otherwise than with %s %s: %w", code, reason, err)
	}
	fmt.Println("refused:", refusal)
	return refusal, nil
}

// may gives which of these a caller has there, as a page asks that shows its buttons.
func may(ctx context.Context, caller *entente.Caller, resource string, permissions ...string) ([]string, error) {
	answer, err := accessv1.NewAccessServiceClient(caller).TestMyPermissions(ctx,
		&accessv1.TestMyPermissionsRequest{Resource: resource, Permissions: permissions})
	if err != nil {
		return nil, err
	}
	fmt.Println("may", answer.Permissions)
	return answer.Permissions, nil
}

func whoAmI(ctx context.Context, caller *entente.Caller) (*directoryv1.WhoAmIResponse, error) {
	return directoryv1.NewSessionServiceClient(caller).WhoAmI(ctx, &directoryv1.WhoAmIRequest{})
}

// expect ends the tour where something isn't as the documents say.
func expect(holds bool, format string, values ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf("it does not hold: "+format, values...)
}

// expectSame ends the tour where a list isn't as the documents say.
func expectSame(list []string, ought ...string) error {
	return expect(strings.Join(list, "\n") == strings.Join(ought, "\n"), "%q ought to be %q", list, ought)
}

// roles is a set of rights that has nothing but roles.
func roles(all ...accessv1.AccountRole) *accessv1.Rights {
	return &accessv1.Rights{Roles: all}
}
