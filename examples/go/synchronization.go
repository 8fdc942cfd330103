package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"entente.dev/examples/go/entente"
	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
	accountv1 "entente.dev/examples/go/gen/entente/account/v1"
	directoryv1 "entente.dev/examples/go/gen/entente/directory/v1"
)

// It fills Fabrikam from now on, by an agent that streams it. Nobody is made there by hand then; who came is assigned like everybody.
func localDirectory(ctx context.Context, t *tour) error {
	agent, err := makeProgram(ctx, t, t.fay, t.fabrikam, "Directory agent")
	if err != nil {
		return err
	}
	_, err = directoryv1.NewTenantServiceClient(t.fay).SetDirectorySynchronization(ctx,
		&directoryv1.SetDirectorySynchronizationRequest{Name: t.fabrikam, Enabled: true, Agent: agent.name})
	if err != nil {
		return err
	}
	run := entente.NewRequestID()
	told, err := synchronize(ctx, agent.caller, staff(t.fabrikam, run))
	if err != nil {
		return err
	}
	how := told.Synchronization
	fmt.Println(how.UpsertedCount, "entries taken over")
	if err := expect(how.LastSequence == 2 && how.UpsertedCount == 1000 && len(told.Faults) == 0, "%v", told); err != nil {
		return err
	}
	// After a broken stream the same may simply come again: each message is done once.
	again, err := synchronize(ctx, agent.caller, staff(t.fabrikam, run))
	if err != nil {
		return err
	}
	if err := expect(proto.Equal(again, told), "%v", again); err != nil {
		return err
	}

	users := directoryv1.NewUserServiceClient(t.fay)
	gus := &directoryv1.User{UserName: "gus", GivenName: "Gus", FamilyName: "Field"}
	_, err = users.CreateUser(ctx, &directoryv1.CreateUserRequest{Parent: t.fabrikam, User: gus})
	if _, err := refused(err, codes.FailedPrecondition, accessv1.ErrorReason_ERROR_REASON_DIRECTORY_SYNCHRONIZED); err != nil {
		return err
	}
	found, err := users.ListUsers(ctx, &directoryv1.ListUsersRequest{Parent: t.fabrikam, Filter: `user_name = "staff742"`})
	if err != nil {
		return err
	}
	if err := expect(len(found.Users) == 1 && found.Users[0].Synchronized, "%v", found.Users); err != nil {
		return err
	}
	_, err = accountv1.NewMemberServiceClient(t.fay).AddMembers(ctx,
		&accountv1.AddMembersRequest{Parent: t.account, Principals: []string{found.Users[0].Name}})
	return err
}

// synchronize sends messages as one stream; the last one's answer is the call's.
func synchronize(
	ctx context.Context, agent *entente.Caller, messages []*directoryv1.SyncDirectoryRequest,
) (*directoryv1.SyncDirectoryResponse, error) {
	stream, err := directoryv1.NewTenantServiceClient(agent).SyncDirectory(ctx)
	if err != nil {
		return nil, err
	}
	for _, message := range messages {
		// io.EOF says that the server has ended the stream; why, CloseAndRecv tells.
		if err := stream.Send(message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return stream.CloseAndRecv()
}

// staff gives a thousand people of a local directory, as the messages of a stream: 500 entries each, counted from 1.
func staff(tenant, run string) []*directoryv1.SyncDirectoryRequest {
	var messages []*directoryv1.SyncDirectoryRequest
	for sequence := 1; sequence <= 2; sequence++ {
		message := &directoryv1.SyncDirectoryRequest{Parent: tenant, RequestId: run, Sequence: int64(sequence)}
		for n := 500 * (sequence - 1); n < 500*sequence; n++ {
			message.Entries = append(message.Entries, &directoryv1.DirectoryEntry{
				ExternalId: fmt.Sprintf("staff-%d", n),
				Change: &directoryv1.DirectoryEntry_User{User: &directoryv1.DirectoryUser{
					UserName: fmt.Sprintf("staff%d", n), GivenName: "Number", FamilyName: fmt.Sprint(n),
				}},
			})
		}
		messages = append(messages, message)
	}
	return messages
}

// Everybody of it is out; whoever has the link that its global admins got brings it back within 30 days.
func deletedAndBroughtBack(ctx context.Context, t *tour) error {
	// A deletion wants a sign-in of the last ten minutes.
	const name, password = "fay@fabrikam.partners.localhost", "quiet-orchard-gate"
	token, err := signIn(ctx, t.nobody, name, password)
	if err != nil {
		return err
	}
	t.fay = t.nobody.As(token)
	deleted, err := directoryv1.NewTenantServiceClient(t.fay).DeleteTenant(ctx, &directoryv1.DeleteTenantRequest{Name: t.fabrikam})
	if err != nil {
		return err
	}
	losses := deleted.Losses
	if err := expect(losses.UserCount == 1001 && losses.GuestElsewhereCount == 1, "%v", losses); err != nil {
		return err
	}
	_, err = whoAmI(ctx, t.fay)
	if _, err := refused(err, codes.Unauthenticated, accessv1.ErrorReason_ERROR_REASON_TOKEN_INVALID); err != nil {
		return err
	}
	link, err := t.mails.tokenFor(ctx, "fay@mail.example")
	if err != nil {
		return err
	}
	_, err = directoryv1.NewTenantServiceClient(t.nobody).UndeleteTenant(ctx, &directoryv1.UndeleteTenantRequest{Token: link})
	if err != nil {
		return err
	}
	if token, err = signIn(ctx, t.nobody, name, password); err != nil {
		return err
	}
	me, err := whoAmI(ctx, t.nobody.As(token))
	if err != nil {
		return err
	}
	roles := me.DirectoryRoles
	globalAdmin := len(roles) == 1 && roles[0] == directoryv1.DirectoryRole_DIRECTORY_ROLE_GLOBAL_ADMIN
	active := me.Tenant.State == directoryv1.TenantState_TENANT_STATE_ACTIVE
	return expect(me.Principal == t.fayUser && active && globalAdmin, "%v", me)
}
