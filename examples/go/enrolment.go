package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"

	"entente.dev/examples/go/entente"
	accessv1 "entente.dev/examples/go/gen/entente/access/v1"
	accountv1 "entente.dev/examples/go/gen/entente/account/v1"
	directoryv1 "entente.dev/examples/go/gen/entente/directory/v1"
)

// A company enrols, from the partner network to what a reviewer has before them. Who decides about it is the operator's people, whose rights
// sleep for 72 hours; docs/tour-accounts.md goes on from there, with a clock that is moved.

const publisher, legalName = "Litware", "Litware SARL"

func address() *accountv1.PostalAddress {
	return &accountv1.PostalAddress{
		RegionCode: "FR", PostalCode: "75008", Locality: "Paris", AddressLines: []string{"1 rue Royale"},
	}
}

func contact(name string) *accountv1.Contact {
	return &accountv1.Contact{
		DisplayName: name + " Lit", Email: strings.ToLower(name) + "@litware.example", PhoneNumber: "+33142685300",
	}
}

// Olga has no tenant, only an identity of her own. Whoever isn't in the network opens no account, and is told how to join.
func companyJoins(ctx context.Context, t *tour) error {
	const email, password = "olga@mail.example", "winter-anchor-moss"
	identities := directoryv1.NewIdentityServiceClient(t.nobody)
	_, err := identities.SignUp(ctx, &directoryv1.SignUpRequest{Email: email, GivenName: "Olga", FamilyName: "Lit", Password: password})
	if err != nil {
		return err
	}
	link, err := t.mails.tokenFor(ctx, email)
	if err != nil {
		return err
	}
	if _, err := identities.ConfirmIdentity(ctx, &directoryv1.ConfirmIdentityRequest{Token: link, Password: password}); err != nil {
		return err
	}
	token, err := signIn(ctx, t.nobody, email, password)
	if err != nil {
		return err
	}
	t.olga = t.nobody.As(token)
	_, err = accountv1.NewAccountServiceClient(t.olga).CreateAccount(ctx, aDraft())
	refusal, err := refused(err, codes.FailedPrecondition, accessv1.ErrorReason_ERROR_REASON_NOT_NETWORK_MEMBER)
	if err != nil {
		return err
	}
	if err := expect(strings.HasSuffix(refusal.Metadata["method"], "/JoinNetwork"), "it says how: %v", refusal.Metadata); err != nil {
		return err
	}
	joined, err := accountv1.NewNetworkServiceClient(t.olga).JoinNetwork(ctx, &accountv1.JoinNetworkRequest{
		NetworkMembership: &accountv1.NetworkMembership{
			LegalName: legalName, CountryCode: "FR", WebsiteUri: "https://litware.example/", Contact: contact("Paula"),
		},
	})
	if err != nil {
		return err
	}
	fmt.Println("joined as", joined.PartnerId)
	return nil
}

// aDraft is the request of a draft with a tenant of its own.
func aDraft() *accountv1.CreateAccountRequest {
	return &accountv1.CreateAccountRequest{
		Account: &accountv1.Account{LegalName: legalName, CountryCode: "FR"},
		NewTenant: &accountv1.NewTenant{
			Tenant:     &directoryv1.Tenant{DomainPrefix: "litware", DisplayName: publisher, ContactEmail: "office@litware.example"},
			FirstAdmin: &directoryv1.FirstAdmin{GivenName: "Lea", FamilyName: "Lit", UserName: "lea", RecoveryEmail: "lea@mail.example"},
		},
	}
}

// In one call: the tenant, its first admin, who manages the account, and Olga as its owner.
func accountWithTenant(ctx context.Context, t *tour) error {
	accounts := accountv1.NewAccountServiceClient(t.olga)
	made, err := accounts.CreateAccount(ctx, aDraft())
	if err != nil {
		return err
	}
	t.litware = made.Account.Name
	if err := expect(made.Account.State == accountv1.AccountState_ACCOUNT_STATE_DRAFT, "%v", made.Account); err != nil {
		return err
	}
	token, err := settleIn(ctx, t.nobody, made.FirstAdmin.SignInName, made.TemporaryPassword, "bright-saddle-rain")
	if err != nil {
		return err
	}
	t.lea = t.nobody.As(token)
	_, err = accounts.GetAccount(ctx, &accountv1.GetAccountRequest{Name: t.litware})
	return err
}

// missing is what the account lacks before it can be submitted, in the order to do it.
func missing(ctx context.Context, t *tour) ([]*accountv1.Requirement, error) {
	told, err := accountv1.NewAccountServiceClient(t.lea).ListRequiredActions(ctx,
		&accountv1.ListRequiredActionsRequest{Parent: t.litware})
	if err != nil {
		return nil, err
	}
	var left []*accountv1.Requirement
	for _, requirement := range told.Requirements {
		if requirement.Blocks == accountv1.RequirementBlock_REQUIREMENT_BLOCK_SUBMISSION {
			left = append(left, requirement)
		}
	}
	return left, nil
}

// Each thing that is missing names the method that mends it; submitting names all of them at once.
func whatIsMissing(ctx context.Context, t *tour) error {
	all, err := missing(ctx, t)
	if err != nil {
		return err
	}
	for _, requirement := range all {
		fmt.Println(requirement.Text, "by", requirement.Method)
	}
	accounts := accountv1.NewAccountServiceClient(t.lea)
	_, err = accounts.SubmitAccount(ctx, &accountv1.SubmitAccountRequest{Name: t.litware, SignatoryConfirmed: true})
	refusal, err := refused(err, codes.FailedPrecondition, accessv1.ErrorReason_ERROR_REASON_ENROLMENT_INCOMPLETE)
	if err != nil {
		return err
	}
	named := strings.Join(refusal.Fields(), " ")
	lacks := strings.Contains(named, "account.primary_contact") && strings.Contains(named, "agreement")
	if err := expect(lacks, "it names all: %s", named); err != nil {
		return err
	}
	_, err = accounts.UpdateAccount(ctx, &accountv1.UpdateAccountRequest{Account: &accountv1.Account{
		Name: t.litware, PublisherDisplayName: publisher, Address: address(), PrimaryContact: contact("Paula"),
		SellerContact:   &accountv1.SellerContact{Contact: contact("Sam"), Address: address()},
		CompanyApprover: contact("Ada"),
	}})
	if err != nil {
		return err
	}
	left, err := missing(ctx, t)
	if err != nil {
		return err
	}
	agreement := len(left) > 0 && left[0].Code == accountv1.RequirementCode_REQUIREMENT_CODE_AGREEMENT
	return expect(agreement, "the agreement is next: %v", left)
}

// The version that was read, in the language that was read; then nothing is left but to submit.
func agreementIsAccepted(ctx context.Context, t *tour) error {
	left, err := missing(ctx, t)
	if err != nil {
		return err
	}
	acceptance, err := accountv1.NewAgreementServiceClient(t.lea).AcceptAgreement(ctx, &accountv1.AcceptAgreementRequest{
		Parent: t.litware, Kind: accessv1.AgreementKind_AGREEMENT_KIND_PARTNER_NETWORK,
		Version: left[0].AgreementVersion, LanguageCode: "en",
	})
	if err != nil {
		return err
	}
	fmt.Println(acceptance.AcceptedBy, "accepted version", left[0].AgreementVersion)
	account, err := accountv1.NewAccountServiceClient(t.lea).SubmitAccount(ctx,
		&accountv1.SubmitAccountRequest{Name: t.litware, SignatoryConfirmed: true})
	if err != nil {
		return err
	}
	return expect(account.State == accountv1.AccountState_ACCOUNT_STATE_PENDING, "%v", account)
}

// By links of two mails: the contact that the enrolment is theirs, the approver that the company wants it. Each is good once.
func contactConfirms(ctx context.Context, t *tour) error {
	nobody := accountv1.NewVerificationServiceClient(t.nobody)
	token, err := t.mails.tokenFor(ctx, "paula@litware.example")
	if err != nil {
		return err
	}
	confirm := &accountv1.ConfirmContactRequest{Token: token, Choice: accountv1.ContactChoice_CONTACT_CHOICE_CONFIRM}
	if _, err := nobody.ConfirmContact(ctx, confirm); err != nil {
		return err
	}
	confirm.RequestId = ""
	_, err = nobody.ConfirmContact(ctx, confirm)
	if _, err := refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_LINK_INVALID); err != nil {
		return err
	}
	if token, err = t.mails.tokenFor(ctx, "ada@litware.example"); err != nil {
		return err
	}
	enrolment, err := nobody.GetEnrolmentForApproval(ctx, &accountv1.GetEnrolmentForApprovalRequest{Token: token})
	if err != nil {
		return err
	}
	if err := expect(enrolment.LegalName == legalName, "%v", enrolment); err != nil {
		return err
	}
	_, err = nobody.ConfirmApproval(ctx,
		&accountv1.ConfirmApprovalRequest{Token: token, Decision: accountv1.ApprovalDecision_APPROVAL_DECISION_APPROVE})
	return err
}

// upload sends a document in pieces: the first message says what it is, the others bring it.
func upload(ctx context.Context, caller *entente.Caller, parent, name string, content []byte) (*accountv1.Document, error) {
	stream, err := accountv1.NewVerificationServiceClient(caller).UploadDocument(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&accountv1.UploadDocumentRequest{
		Parent: parent, DisplayName: name, MediaType: "application/pdf", RequestId: entente.NewRequestID(),
	})
	for len(content) > 0 && err == nil {
		piece := content
		if len(piece) > 64*1024 {
			piece = piece[:64*1024]
		}
		content = content[len(piece):]
		err = stream.Send(&accountv1.UploadDocumentRequest{Content: piece})
	}
	// The end of the stream says only that it ended; why, the answer tells.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream.CloseAndRecv()
}

// Paula's address lies in no domain that Litware has verified, so a document says that she works there. What it is, its content says.
func documentIsBrought(ctx context.Context, t *tour) error {
	verification := accountv1.NewVerificationServiceClient(t.lea)
	told, err := verification.ListRequirements(ctx, &accountv1.ListRequirementsRequest{Parent: t.litware})
	if err != nil {
		return err
	}
	var asked []string
	for _, requirement := range told.Requirements {
		asked = append(asked, requirement.Step)
	}
	if err := expect(strings.Contains(strings.Join(asked, " "), "EMPLOYMENT"), "%v", asked); err != nil {
		return err
	}
	_, err = upload(ctx, t.lea, t.litware, "badge.pdf", []byte("just words"))
	if _, err := refused(err, codes.InvalidArgument, accessv1.ErrorReason_ERROR_REASON_INVALID_FIELDS); err != nil {
		return err
	}
	pdf := []byte("%PDF-1.7\n1 0 obj\n<<>>\nendobj\n")
	pdf = append(pdf, bytes.Repeat([]byte("% badge\n"), 20_000)...)
	pdf = append(pdf, "startxref\n9\n%%EOF\n"...)
	document, err := upload(ctx, t.lea, t.litware, "badge.pdf", pdf)
	if err != nil {
		return err
	}
	if err := expect(document.SizeBytes == int64(len(pdf)), "%v", document); err != nil {
		return err
	}
	_, err = verification.SubmitStep(ctx, &accountv1.SubmitStepRequest{
		Name: t.litware, Step: accountv1.VerificationStepKind_VERIFICATION_STEP_KIND_EMPLOYMENT,
		Documents: []string{document.Name}, Note: "Her badge.",
	})
	return err
}

// A reviewer of the operator is next; nobody of the company can be, and it can do nothing meanwhile.
func howFar(ctx context.Context, t *tour) error {
	verification := accountv1.NewVerificationServiceClient(t.lea)
	told, err := verification.GetVerification(ctx, &accountv1.GetVerificationRequest{Name: t.litware})
	if err != nil {
		return err
	}
	var states []string
	for _, step := range told.Steps {
		states = append(states, strings.TrimPrefix(step.State.String(), "VERIFICATION_STEP_STATE_"))
	}
	fmt.Println(states)
	if err := expectSame(states, "VERIFIED", "IN_PROGRESS", "NOT_STARTED"); err != nil {
		return err
	}
	_, err = verification.ListReviews(ctx, &accountv1.ListReviewsRequest{})
	if _, err := refused(err, codes.PermissionDenied, accessv1.ErrorReason_ERROR_REASON_PERMISSION_MISSING); err != nil {
		return err
	}
	account, err := accountv1.NewAccountServiceClient(t.lea).GetAccount(ctx, &accountv1.GetAccountRequest{Name: t.litware})
	if err != nil {
		return err
	}
	return expect(account.State == accountv1.AccountState_ACCOUNT_STATE_PENDING, "%v", account)
}
