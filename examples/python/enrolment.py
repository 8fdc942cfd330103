"""The tour's third part: a company enrols, from the partner network to what a reviewer has before them.

Who decides about it is the operator's people, whose rights sleep for 72 hours; docs/tour-accounts.md goes on from there, with a clock that is moved.
"""

from grpc import StatusCode

from client import new_request_id
from entente.access.v1 import enrolment_pb2, reason_pb2 as reasons
from entente.account.v1 import account_pb2, agreement_pb2 as agreements, network_pb2, profile_pb2, requirement_pb2, verification_pb2
from entente.directory.v1 import identity_pb2, tenant_pb2
from services import Accounts, Agreements, Identities, Network, Verification
from steps import expect, refused, settle_in, sign_in, step

PUBLISHER, LEGAL_NAME = "Litware", "Litware SARL"
ADDRESS = profile_pb2.PostalAddress(region_code="FR", postal_code="75008", locality="Paris", address_lines=["1 rue Royale"])


def contact(name):
    return profile_pb2.Contact(display_name=f"{name} Lit", email=f"{name.lower()}@litware.example", phone_number="+33142685300")


@step("A company joins the network")
def company_joins(t):
    """Olga has no tenant, only an identity of her own. Whoever isn't in the network opens no account, and is told how to join."""
    email, password = "olga@mail.example", "winter-anchor-moss"
    request = identity_pb2.SignUpRequest(email=email, given_name="Olga", family_name="Lit", password=password)
    t.nobody.of(Identities).SignUp(request)
    request = identity_pb2.ConfirmIdentityRequest(token=t.mails.token_for(email), password=password)
    t.nobody.of(Identities).ConfirmIdentity(request)
    t.olga = t.nobody.as_(sign_in(t.nobody, email, password))
    with refused(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_NOT_NETWORK_MEMBER) as told:
        t.olga.of(Accounts).CreateAccount(an_account())
    expect(told[0].metadata["method"].endswith("/JoinNetwork"), told[0].metadata)
    membership = network_pb2.NetworkMembership(
        legal_name=LEGAL_NAME, country_code="FR", website_uri="https://litware.example/", contact=contact("Paula")
    )
    joined = t.olga.of(Network).JoinNetwork(network_pb2.JoinNetworkRequest(network_membership=membership))
    print("joined as", joined.partner_id)


def an_account():
    """The request of a draft with a tenant of its own."""
    return account_pb2.CreateAccountRequest(
        account=account_pb2.Account(legal_name=LEGAL_NAME, country_code="FR"),
        new_tenant=account_pb2.NewTenant(
            tenant=tenant_pb2.Tenant(domain_prefix="litware", display_name=PUBLISHER, contact_email="office@litware.example"),
            first_admin=tenant_pb2.FirstAdmin(
                given_name="Lea", family_name="Lit", user_name="lea", recovery_email="lea@mail.example"
            ),
        ),
    )


@step("An account with a new tenant")
def account_with_tenant(t):
    """In one call: the tenant, its first admin, who manages the account, and Olga as its owner."""
    made = t.olga.of(Accounts).CreateAccount(an_account())
    t.litware = made.account.name
    expect(made.account.state == account_pb2.ACCOUNT_STATE_DRAFT, made.account)
    token = settle_in(t.nobody, made.first_admin.sign_in_name, made.temporary_password, "bright-saddle-rain")
    t.lea = t.nobody.as_(token)
    t.olga.of(Accounts).GetAccount(account_pb2.GetAccountRequest(name=t.litware))


def missing(t):
    """What the account lacks before it can be submitted, in the order to do it."""
    request = account_pb2.ListRequiredActionsRequest(parent=t.litware)
    told = t.lea.of(Accounts).ListRequiredActions(request).requirements
    return [r for r in told if r.blocks == requirement_pb2.REQUIREMENT_BLOCK_SUBMISSION]


@step("What is missing is mended")
def what_is_missing(t):
    """Each thing that is missing names the method that mends it; submitting names all of them at once."""
    for requirement in missing(t):
        print(requirement.text, "by", requirement.method)
    submit = account_pb2.SubmitAccountRequest(name=t.litware, signatory_confirmed=True)
    with refused(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_ENROLMENT_INCOMPLETE) as told:
        t.lea.of(Accounts).SubmitAccount(submit)
    expect("account.primary_contact" in told[0].fields and "agreement" in told[0].fields, told[0].fields)

    account = account_pb2.Account(
        name=t.litware,
        publisher_display_name=PUBLISHER,
        address=ADDRESS,
        primary_contact=contact("Paula"),
        seller_contact=account_pb2.SellerContact(contact=contact("Sam"), address=ADDRESS),
        company_approver=contact("Ada"),
    )
    t.lea.of(Accounts).UpdateAccount(account_pb2.UpdateAccountRequest(account=account))
    left = [r.code for r in missing(t)]
    expect(left[0] == requirement_pb2.REQUIREMENT_CODE_AGREEMENT, left)


@step("The agreement is accepted")
def agreement_is_accepted(t):
    """The version that was read, in the language that was read; then nothing is left but to submit."""
    (wanted,) = (r for r in missing(t) if r.code == requirement_pb2.REQUIREMENT_CODE_AGREEMENT)
    request = agreements.AcceptAgreementRequest(
        parent=t.litware,
        kind=enrolment_pb2.AGREEMENT_KIND_PARTNER_NETWORK,
        version=wanted.agreement_version,
        language_code="en",
    )
    acceptance = t.lea.of(Agreements).AcceptAgreement(request)
    print(acceptance.accepted_by, "accepted version", wanted.agreement_version)
    submit = account_pb2.SubmitAccountRequest(name=t.litware, signatory_confirmed=True)
    account = t.lea.of(Accounts).SubmitAccount(submit)
    expect(account.state == account_pb2.ACCOUNT_STATE_PENDING, account)


@step("Contact and approver confirm")
def contact_confirms(t):
    """By links of two mails: the contact that the enrolment is theirs, the approver that the company wants it. Each is good once."""
    nobody, token = t.nobody.of(Verification), t.mails.token_for("paula@litware.example")
    request = verification_pb2.ConfirmContactRequest(token=token, choice=verification_pb2.CONTACT_CHOICE_CONFIRM)
    nobody.ConfirmContact(request)
    request.request_id = ""
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_LINK_INVALID):
        nobody.ConfirmContact(request)
    token = t.mails.token_for("ada@litware.example")
    enrolment = nobody.GetEnrolmentForApproval(verification_pb2.GetEnrolmentForApprovalRequest(token=token))
    expect(enrolment.legal_name == LEGAL_NAME, enrolment)
    nobody.ConfirmApproval(
        verification_pb2.ConfirmApprovalRequest(token=token, decision=verification_pb2.APPROVAL_DECISION_APPROVE)
    )


def pieces(parent, display_name, content, piece=64 * 1024):
    """The messages of an upload: the first says what it is, the others bring it."""
    yield verification_pb2.UploadDocumentRequest(
        parent=parent, display_name=display_name, media_type="application/pdf", request_id=new_request_id()
    )
    for at in range(0, len(content), piece):
        yield verification_pb2.UploadDocumentRequest(content=content[at : at + piece])


@step("A document is brought")
def document_is_brought(t):
    """Paula's address lies in no domain that Litware has verified, so a document says that she works there. What it is, its content says."""
    verification = t.lea.of(Verification)
    request = verification_pb2.ListRequirementsRequest(parent=t.litware)
    steps = [r.step for r in verification.ListRequirements(request).requirements]
    expect("EMPLOYMENT" in steps, steps)
    with refused(StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_FIELDS):
        verification.UploadDocument(pieces(t.litware, "badge.pdf", b"just words"))
    pdf = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n" + b"% badge\n" * 20_000 + b"startxref\n9\n%%EOF\n"
    document = verification.UploadDocument(pieces(t.litware, "badge.pdf", pdf))
    expect(document.size_bytes == len(pdf), document)
    verification.SubmitStep(
        verification_pb2.SubmitStepRequest(
            name=t.litware,
            step=verification_pb2.VERIFICATION_STEP_KIND_EMPLOYMENT,
            documents=[document.name],
            note="Her badge.",
        )
    )


@step("How far it has come")
def how_far(t):
    """A reviewer of the operator is next; nobody of the company can be, and it can do nothing meanwhile."""
    told = t.lea.of(Verification).GetVerification(verification_pb2.GetVerificationRequest(name=t.litware))
    states = [verification_pb2.VerificationStepState.Name(one.state) for one in told.steps]
    print(*states)
    expect([state.removeprefix("VERIFICATION_STEP_STATE_") for state in states] == ["VERIFIED", "IN_PROGRESS", "NOT_STARTED"], states)
    with refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_PERMISSION_MISSING):
        t.lea.of(Verification).ListReviews(verification_pb2.ListReviewsRequest())
    account = t.lea.of(Accounts).GetAccount(account_pb2.GetAccountRequest(name=t.litware))
    expect(account.state == account_pb2.ACCOUNT_STATE_PENDING, account)
