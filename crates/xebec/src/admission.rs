//! The laptop's admission: whoever comes over loopback may use models, and nobody may change what is served.
//!
//! Credentials, policies and quotas take this place behind the same port.
use xebec_core::{
    TenantId, Verb,
    permit::{Admit, Ask, Decision, Denied},
};

/// Admits by where a caller comes from.
#[derive(Clone, Debug)]
pub(crate) struct Laptop {
    tenant: TenantId,
    /// The operator has said that callers off loopback are to be served.
    open: bool,
}

impl Laptop {
    pub(crate) fn new(open: bool) -> Self {
        Self { tenant: TenantId::default_tenant(), open }
    }
}

impl Admit for Laptop {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let deny = |reason: &str| Decision::Deny(Denied { reason: reason.to_owned() });
        match ask.verb {
            Verb::Admin => deny(
                "changing what is served is not allowed: this server runs with --model-control-mode none",
            ),
            Verb::Probe => Decision::Allow(self.tenant.clone()),
            Verb::ReadServer | Verb::ReadModel | Verb::Infer => {
                if self.open || ask.principal.is_loopback() {
                    Decision::Allow(self.tenant.clone())
                } else {
                    deny("only callers on this machine are served")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xebec_core::Principal;

    fn decide(open: bool, verb: Verb, peer: &str) -> bool {
        let principal = Principal::Anonymous { peer: peer.parse().unwrap() };
        matches!(
            Laptop::new(open).decide(&Ask { principal: &principal, verb, model: None }),
            Decision::Allow(_)
        )
    }

    #[test]
    fn loopback_may_use_models_and_others_only_if_the_operator_said_so() {
        assert!(decide(false, Verb::Infer, "127.0.0.1:1"));
        assert!(decide(false, Verb::ReadModel, "[::1]:1"));
        assert!(!decide(false, Verb::Infer, "192.0.2.1:1"));
        assert!(decide(true, Verb::Infer, "192.0.2.1:1"));
        assert!(decide(false, Verb::Probe, "192.0.2.1:1"));
    }

    #[test]
    fn nobody_may_change_what_is_served() {
        assert!(!decide(true, Verb::Admin, "127.0.0.1:1"));
    }
}
