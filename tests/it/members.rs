//! MemberService.
