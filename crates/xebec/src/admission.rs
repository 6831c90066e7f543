//! The laptop's admission: whoever comes over loopback may use models, and change what is served if the operator said
//! that models are loaded by order.
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
    /// The operator has said which shared memory may be registered.
    shared_memory: bool,
    /// The operator has said that callers on this machine may change what is served.
    explicit: bool,
}

impl Laptop {
    pub(crate) fn new(open: bool, shared_memory: bool, explicit: bool) -> Self {
        Self { tenant: TenantId::default_tenant(), open, shared_memory, explicit }
    }
}

impl Admit for Laptop {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let deny = |reason: &str| Decision::Deny(Denied { reason: reason.to_owned() });
        match ask.verb {
            Verb::Admin if !self.explicit => deny(
                "changing models or settings is not allowed: this server runs without --model-control-mode explicit",
            ),
            // Whatever the operator opened: without credentials nobody else can be told from anybody.
            Verb::Admin if !ask.principal.is_loopback() => {
                deny("only callers on this machine may change models or settings")
            }
            Verb::Admin => Decision::Allow(self.tenant.clone()),
            Verb::ShareMemory if !self.shared_memory => {
                deny("shared memory is not allowed: this server runs without --allow-shared-memory")
            }
            // Memory of this machine means nothing to a caller on another.
            Verb::ShareMemory if !ask.principal.is_loopback() => {
                deny("only callers on this machine may use its shared memory")
            }
            Verb::ShareMemory => Decision::Allow(self.tenant.clone()),
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
        decide_with(Laptop::new(open, false, false), verb, peer)
    }

    fn decide_with(laptop: Laptop, verb: Verb, peer: &str) -> bool {
        let principal = Principal::Anonymous { peer: peer.parse().unwrap() };
        matches!(laptop.decide(&Ask { principal: &principal, verb, model: None }), Decision::Allow(_))
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
    fn shared_memory_is_for_loopback_and_only_where_the_operator_said_which() {
        let decide = |open, allowed, peer: &str| {
            let principal = Principal::Anonymous { peer: peer.parse().unwrap() };
            let ask = Ask { principal: &principal, verb: Verb::ShareMemory, model: None };
            Laptop::new(open, allowed, false).decide(&ask)
        };
        assert!(matches!(decide(false, true, "127.0.0.1:1"), Decision::Allow(_)));
        assert!(matches!(decide(true, true, "192.0.2.1:1"), Decision::Deny(_)));
        let Decision::Deny(Denied { reason }) = decide(true, false, "127.0.0.1:1") else { panic!("allowed") };
        assert!(reason.contains("--allow-shared-memory"), "{reason}");
    }

    #[test]
    fn only_callers_on_this_machine_may_change_what_is_served_and_only_with_explicit_control() {
        assert!(!decide(true, Verb::Admin, "127.0.0.1:1"));
        assert!(decide_with(Laptop::new(false, false, true), Verb::Admin, "127.0.0.1:1"));
        assert!(!decide_with(Laptop::new(true, false, true), Verb::Admin, "192.0.2.1:1"));
    }
}
