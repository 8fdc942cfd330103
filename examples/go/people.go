package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"entente.dev/examples/go/entente"
	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
	directoryv1 "entente.dev/examples/go/gen/entente/directory/v1"
)

// The one-time password's token is good for nothing but a new password.
func operatorSignsIn(ctx context.Context, t *tour) error {
	const name, password = "admin@operator.partners.localhost", "violet-harbour-lantern"
	token, err := signIn(ctx, t.nobody, name, t.oneTime)
	if err != nil {
		return err
	}
	_, err = directoryv1.NewTenantServiceClient(t.nobody.As(token)).ListTenants(ctx, &directoryv1.ListTenantsRequest{})
	if _, err := refused(err, codes.FailedPrecondition, accessv1.ErrorReason_ERROR_REASON_PASSWORD_CHANGE_REQUIRED); err != nil {
		return err
	}
	if token, err = settleIn(ctx, t.nobody, name, t.oneTime, password); err != nil {
		return err
	}
	t.operator = t.nobody.As(token)
	me, err := whoAmI(ctx, t.operator)
	if err != nil {
		return err
	}
	fmt.Println(me.DisplayName, "of", me.Tenant.DisplayName)
	return nil
}

func twoTenants(ctx context.Context, t *tour) (err error) {
	t.contoso, t.annUser, t.annToken, err = tenant(ctx, t, "contoso", "Contoso", "Ann", "Smith", "seven-copper-kettles")
	if err != nil {
		return err
	}
	t.ann = t.nobody.As(t.annToken)
	t.fabrikam, t.fayUser, t.fayToken, err = tenant(ctx, t, "fabrikam", "Fabrikam", "Fay", "Stone", "quiet-orchard-gate")
	if err != nil {
		return err
	}
	t.fay = t.nobody.As(t.fayToken)
	return nil
}

// tenant makes a tenant with its first global admin, who signs in with the temporary password of the answer, shown this once.
func tenant(ctx context.Context, t *tour, prefix, name, givenName, familyName, password string) (tenant, admin, token string, err error) {
	userName := strings.ToLower(givenName)
	made, err := directoryv1.NewTenantServiceClient(t.operator).CreateTenant(ctx, &directoryv1.CreateTenantRequest{
		Tenant: &directoryv1.Tenant{DomainPrefix: prefix, DisplayName: name, ContactEmail: "office@" + prefix + ".example"},
		FirstAdmin: &directoryv1.FirstAdmin{
			GivenName: givenName, FamilyName: familyName, UserName: userName, RecoveryEmail: userName + "@mail.example",
		},
	})
	if err != nil {
		return "", "", "", err
	}
	token, err = settleIn(ctx, t.nobody, made.FirstAdmin.SignInName, made.TemporaryPassword, password)
	return made.Tenant.Name, made.FirstAdmin.Name, token, err
}

// A global admin needs an address for recovery.
func twoUsers(ctx context.Context, t *tour) error {
	users := directoryv1.NewUserServiceClient(t.ann)
	bob := &directoryv1.User{
		UserName: "bob", GivenName: "Bob", FamilyName: "Hill",
		DirectoryRoles: []directoryv1.DirectoryRole{directoryv1.DirectoryRole_DIRECTORY_ROLE_GLOBAL_ADMIN},
	}
	_, err := users.CreateUser(ctx, &directoryv1.CreateUserRequest{Parent: t.contoso, User: bob})
	refusal, err := refused(err, codes.InvalidArgument, accessv1.ErrorReason_ERROR_REASON_INVALID_FIELDS)
	if err != nil {
		return err
	}
	if err := expectSame(refusal.Fields(), "user.recovery_email"); err != nil {
		return err
	}
	bob.RecoveryEmail = "bob@mail.example"
	if _, err := users.CreateUser(ctx, &directoryv1.CreateUserRequest{Parent: t.contoso, User: bob}); err != nil {
		return err
	}
	dee := &directoryv1.User{UserName: "dee", GivenName: "Dee", FamilyName: "Marsh"}
	made, err := users.CreateUser(ctx, &directoryv1.CreateUserRequest{Parent: t.contoso, User: dee})
	if err != nil {
		return err
	}
	t.deeUser, t.deePassword = made.User.Name, made.TemporaryPassword
	return nil
}

// A temporary password is shown this once, and her sessions end.
func passwordIsReset(ctx context.Context, t *tour) error {
	reset, err := directoryv1.NewUserServiceClient(t.ann).ResetPassword(ctx, &directoryv1.ResetPasswordRequest{Name: t.deeUser})
	if err != nil {
		return err
	}
	t.deePassword = reset.TemporaryPassword
	_, err = whoAmI(ctx, t.dee)
	_, err = refused(err, codes.Unauthenticated, accessv1.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	return err
}

// Filters are AIP-160; a page's token leads to the next one, until there is none.
func pages(ctx context.Context, t *tour) error {
	users := directoryv1.NewUserServiceClient(t.ann)
	var found []string
	request := &directoryv1.ListUsersRequest{
		Parent: t.contoso, PageSize: 2, OrderBy: "display_name", Filter: `state = ACTIVE AND NOT display_name : "smi"`,
	}
	for {
		page, err := users.ListUsers(ctx, request)
		if err != nil {
			return err
		}
		for _, user := range page.Users {
			found = append(found, user.DisplayName)
		}
		if page.NextPageToken == "" {
			break
		}
		request.PageToken = page.NextPageToken
	}
	if err := expectSame(found, "Bob Hill", "Dee Marsh"); err != nil {
		return err
	}
	_, err := users.ListUsers(ctx, &directoryv1.ListUsersRequest{Parent: t.contoso, Filter: `shoe_size = 43`})
	_, err = refused(err, codes.InvalidArgument, accessv1.ErrorReason_ERROR_REASON_INVALID_FIELDS)
	return err
}

// Under one request_id a repetition changes nothing and gets the first answer, without its secret.
func sameRequestTwice(ctx context.Context, t *tour) error {
	users := directoryv1.NewUserServiceClient(t.ann)
	request := &directoryv1.CreateUserRequest{
		Parent:    t.contoso,
		User:      &directoryv1.User{UserName: "eve", GivenName: "Eve", FamilyName: "Lake"},
		RequestId: entente.NewRequestID(),
	}
	var firstHeader, secondHeader metadata.MD
	first, err := users.CreateUser(ctx, request, grpc.Header(&firstHeader))
	if err != nil {
		return err
	}
	second, err := users.CreateUser(ctx, request, grpc.Header(&secondHeader))
	if err != nil {
		return err
	}
	if entente.Replayed(firstHeader) || !entente.Replayed(secondHeader) {
		return errors.New("it is the second answer that was given before")
	}
	if err := expect(first.TemporaryPassword != "" && second.TemporaryPassword == "" && second.SecretOmitted, "the secret is shown once"); err != nil {
		return err
	}
	if err := expect(proto.Equal(first.User, second.User), "both answers tell of the same user"); err != nil {
		return err
	}
	t.eveUser, t.evePassword = first.User.Name, first.TemporaryPassword
	// Without a request_id of its own the call is another one.
	request.RequestId = ""
	_, err = users.CreateUser(ctx, request)
	_, err = refused(err, codes.AlreadyExists, accessv1.ErrorReason_ERROR_REASON_USER_NAME_TAKEN)
	return err
}
