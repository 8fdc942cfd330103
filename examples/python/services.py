"""The API's services by short names, for `caller.of(…)`."""

from entente.access.v1.access_pb2_grpc import AccessServiceStub as Access
from entente.account.v1.account_pb2_grpc import AccountServiceStub as Accounts
from entente.account.v1.agreement_pb2_grpc import AgreementServiceStub as Agreements
from entente.account.v1.member_pb2_grpc import MemberServiceStub as Members
from entente.account.v1.network_pb2_grpc import NetworkServiceStub as Network
from entente.account.v1.tenant_association_pb2_grpc import TenantAssociationServiceStub as Associations
from entente.account.v1.verification_pb2_grpc import VerificationServiceStub as Verification
from entente.audit.v1.audit_pb2_grpc import AuditServiceStub as Audit, EventServiceStub as Events
from entente.directory.v1.application_pb2_grpc import ApplicationServiceStub as Applications
from entente.directory.v1.group_pb2_grpc import GroupServiceStub as Groups
from entente.directory.v1.identity_pb2_grpc import IdentityServiceStub as Identities
from entente.directory.v1.invitation_pb2_grpc import InvitationServiceStub as Invitations
from entente.directory.v1.session_pb2_grpc import SessionServiceStub as Sessions
from entente.directory.v1.tenant_pb2_grpc import TenantServiceStub as Tenants
from entente.directory.v1.user_pb2_grpc import UserServiceStub as Users
from entente.operator.v1.staff_pb2_grpc import StaffServiceStub as Staff
