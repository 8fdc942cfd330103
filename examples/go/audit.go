package main

import (
	"context"
	"fmt"

	auditv1 "entente.dev/examples/go/gen/entente/audit/v1"
)

// The audit of the tenant, newest first, and whether its chain of hashes is whole.
func whatHappened(ctx context.Context, t *tour) error {
	audit := auditv1.NewAuditServiceClient(t.ann)
	listed, err := audit.ListAuditEvents(ctx, &auditv1.ListAuditEventsRequest{
		Parent: t.contoso, PageSize: 10, Filter: `action = "entente.directory.v1.UserService/UpdateOwnContact"`,
	})
	if err != nil {
		return err
	}
	if err := expect(len(listed.AuditEvents) == 1, "%d events", len(listed.AuditEvents)); err != nil {
		return err
	}
	event := listed.AuditEvents[0]
	fmt.Println(event.CreateTime.AsTime(), event.Actor, "via", event.Via, event.Action, event.Outcome)
	if err := expect(event.Actor == t.annUser && event.Via == t.portalApplication, "it names both: %v", event); err != nil {
		return err
	}
	verdict, err := audit.VerifyAuditChain(ctx, &auditv1.VerifyAuditChainRequest{Parent: t.contoso})
	if err != nil {
		return err
	}
	fmt.Println(verdict.CheckedCount, "events checked")
	return expect(verdict.Intact, "%v", verdict.Findings)
}

// Every event comes at least once, in order, and goes on from where a program left off: it keeps the cursor with its own work. The stream has
// no end of its own, so this one is left when all is seen that is waited for.
func eventsForPrograms(ctx context.Context, t *tour) error {
	waitedFor := []string{"entente.account.v1.MemberAdded", "entente.account.v1.MemberRemoved"}
	watch, leave := context.WithCancel(ctx)
	defer leave()
	stream, err := auditv1.NewEventServiceClient(t.ann).WatchEvents(watch,
		&auditv1.WatchEventsRequest{Parent: t.account, Types: waitedFor, Resource: t.member})
	if err != nil {
		return err
	}
	var cursor string
	for len(waitedFor) > 0 {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, event := range message.Events {
			fmt.Println(event.CreateTime.AsTime(), event.Type, event.Resource)
			if len(waitedFor) > 0 && event.Type == waitedFor[0] {
				waitedFor = waitedFor[1:]
			}
		}
		cursor = message.Cursor
	}
	return expect(cursor != "", "there is a cursor to go on from")
}
