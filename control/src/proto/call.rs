//! One call (RFC 2637 3.2.4): the outgoing call in both roles, and the PPP link that it carries.
