// The README's tour with generated clients. It makes what it shows, so it works once for each data folder.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"entente.dev/examples/go/entente"
)

// What the steps do, in order; later ones use what earlier ones made. A further step is a function and a line here.
var steps = []struct {
	title string
	run   func(context.Context, *tour) error
}{
	{"The operator's administrator", operatorSignsIn},
	{"Two tenants", twoTenants},
	{"An account", anAccount},
	{"A second tenant on the account", secondTenant},
	{"Two users", twoUsers},
	{"A developer, and what she may", aDeveloper},
	{"The role is taken away", roleIsTakenAway},
	{"A password is reset", passwordIsReset},
	{"Pages", pages},
	{"The same request twice", sameRequestTwice},
	{"An internal service", internalService},
	{"Decisions in a batch", decisionsInABatch},
	{"On behalf of a person", onBehalf},
	{"What happened", whatHappened},
	{"Events for programs", eventsForPrograms},
	{"Keys are changed without a gap", keysAreChanged},
	{"Three people are invited", threeAreInvited},
	{"Two of them accept", twoAccept},
	{"A group of two", groupOfTwo},
	{"A program", aProgram},
	{"A person without a tenant", personWithoutATenant},
	{"A forgotten password", forgottenPassword},
	{"A helpdesk admin", helpdeskAdmin},
	{"Rights that sleep", rightsThatSleep},
	{"A user is deleted and restored", deletedAndRestored},
	{"A local directory", localDirectory},
	{"The second tenant goes", secondTenantGoes},
	{"It is deleted and brought back", deletedAndBroughtBack},
	{"A company joins the network", companyJoins},
	{"An account with a new tenant", accountWithTenant},
	{"What is missing is mended", whatIsMissing},
	{"The agreement is accepted", agreementIsAccepted},
	{"Contact and approver confirm", contactConfirms},
	{"A document is brought", documentIsBrought},
	{"How far it has come", howFar},
}

// What the steps have made so far.
type tour struct {
	nobody  *entente.Caller
	oneTime string
	mails   *mails

	operator, ann, fay, dee, eve, ida, portal, olga, lea *entente.Caller
	annToken, fayToken                                   string

	contoso, fabrikam                           string // tenants/…
	annUser, fayUser, deeUser, eveUser, zoeUser string // tenants/…/users/…
	deePassword, evePassword                    string // Temporary, until they change them.
	idaIdentity                                 string // identities/…
	account, association, member, litware       string // accounts/…
	portalApplication                           string // tenants/…/applications/…
	clientID, secret, key                       string
}

func main() {
	target := flag.String("target", setting("TARGET", "127.0.0.1:50051"), "the server's address")
	data := flag.String("data", setting("DATA", "../../data"), "the server's data folder, for the one-time password and the mails")
	flag.Parse()
	if err := run(*target, *data); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func run(target, data string) error {
	oneTime, err := os.ReadFile(filepath.Join(data, "first-administrator-password"))
	if err != nil {
		return err
	}
	nobody, err := entente.Dial(target)
	if err != nil {
		return err
	}
	defer nobody.Close()

	// No call waits for ever; a deadline is handed to the server too.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	t := &tour{nobody: nobody, oneTime: strings.TrimSpace(string(oneTime)), mails: mailsIn(data)}
	for _, step := range steps {
		fmt.Println("==", step.title)
		if err := step.run(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	return nil
}
