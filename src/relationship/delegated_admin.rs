//! DelegatedAdminService: what a partner's people do in a customer's tenant (REL-14). The rules of the methods prove that a relationship lends
//! what is demanded; the work is the directory's, as for the tenant's own people.

use crate::{
    access::{
        grants::GLOBAL_ADMIN,
        roles::{TENANT_ROLES, bits_of},
        scope::TenantScope,
    },
    app::{Read, Tx},
    check::Violations,
    directory::{lent, user},
    error::Result,
    proto::{
        directory::{
            CreateUserRequest, DisableUserRequest, ListUsersRequest, ListUsersResponse,
            ResetPasswordRequest, User,
        },
        relationship::{
            CreateCustomerUserRequest, CreateCustomerUserResponse, DisableCustomerUserRequest,
            ListCustomerUsersRequest, ListCustomerUsersResponse, ResetCustomerUserPasswordRequest,
            ResetCustomerUserPasswordResponse,
        },
    },
};

fn listed(req: ListCustomerUsersRequest) -> ListUsersRequest {
    let ListCustomerUsersRequest {
        parent,
        relationship: _,
        page_size,
        page_token,
        filter,
        order_by,
    } = req;
    ListUsersRequest {
        parent,
        page_size,
        page_token,
        filter,
        order_by,
        show_deleted: false,
    }
}

pub(crate) fn check_list_customer_users(req: &ListCustomerUsersRequest, v: &mut Violations) {
    user::check_list_users(&listed(req.clone()), v);
}

/// Lists and searches a customer's users.
///
/// # Errors
/// `INVALID_ARGUMENT` for a bad page, filter or order.
pub async fn list_customer_users(
    rd: &Read,
    tenant: TenantScope,
    req: ListCustomerUsersRequest,
) -> Result<ListCustomerUsersResponse> {
    let ListUsersResponse {
        users,
        next_page_token,
    } = user::list_users(rd, tenant, listed(req)).await?;
    Ok(ListCustomerUsersResponse {
        users,
        next_page_token,
    })
}

fn made(req: CreateCustomerUserRequest) -> CreateUserRequest {
    let CreateCustomerUserRequest {
        parent,
        relationship: _,
        user,
        request_id,
        validate_only,
    } = req;
    CreateUserRequest {
        parent,
        user,
        memberships: Vec::new(),
        groups: Vec::new(),
        request_id,
        validate_only,
    }
}

pub(crate) fn check_create_customer_user(req: &CreateCustomerUserRequest, v: &mut Violations) {
    if let Some(user) = &req.user
        && bits_of(TENANT_ROLES, &user.directory_roles) & !GLOBAL_ADMIN != 0
    {
        v.also(
            "user.directory_roles",
            "must be none, or GLOBAL_ADMIN alone",
        );
    }
    user::check_create_user(&made(req.clone()), v);
}

/// Makes a user in a customer's tenant, or a new global admin.
///
/// # Errors
/// As `CreateUser`; `INVALID_ARGUMENT` for another directory role.
pub async fn create_customer_user(
    tx: &mut Tx,
    tenant: TenantScope,
    req: CreateCustomerUserRequest,
) -> Result<CreateCustomerUserResponse> {
    let (answer, link_mailed) = lent::create_user(tx, tenant, made(req)).await?;
    Ok(CreateCustomerUserResponse {
        user: answer.user,
        temporary_password: answer.temporary_password,
        secret_omitted: answer.secret_omitted,
        link_mailed,
    })
}

/// Resets the password of a customer's user.
///
/// # Errors
/// As `ResetPassword`.
pub async fn reset_customer_user_password(
    tx: &mut Tx,
    tenant: TenantScope,
    req: ResetCustomerUserPasswordRequest,
) -> Result<ResetCustomerUserPasswordResponse> {
    let ResetCustomerUserPasswordRequest {
        name,
        relationship: _,
        etag,
        request_id,
        validate_only,
    } = req;
    let request = ResetPasswordRequest {
        name,
        etag,
        request_id,
        validate_only,
    };
    let (answer, link_mailed) = lent::reset_password(tx, tenant, request).await?;
    Ok(ResetCustomerUserPasswordResponse {
        user: answer.user,
        temporary_password: answer.temporary_password,
        secret_omitted: answer.secret_omitted,
        ended_session_count: answer.ended_session_count,
        link_mailed,
    })
}

/// Shuts a customer's user out.
///
/// # Errors
/// As `DisableUser`.
pub async fn disable_customer_user(
    tx: &mut Tx,
    tenant: TenantScope,
    req: DisableCustomerUserRequest,
) -> Result<User> {
    let DisableCustomerUserRequest {
        name,
        relationship: _,
        etag,
        request_id,
        validate_only,
    } = req;
    let request = DisableUserRequest {
        name,
        etag,
        request_id,
        validate_only,
    };
    lent::disable_user(tx, tenant, request).await
}
