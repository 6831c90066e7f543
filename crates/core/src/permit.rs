//! Who asks, for what, and the proof that it was allowed.
//!
//! Invariant: a [`Permit`] exists only because a [`Gate`] asked its [`Admit`] port and the answer was
//! yes. There is no other constructor, not even for tests: a test makes a gate with a policy of its own. Whoever may use
//! a graph may have it use its members: their permits come of its own, and say nothing more.
//!
//! Not here: the policies (the binary wires one; the gateway's will be Cedar), identities on the wire
//! (`xebec-net`).
use crate::{ModelName, TenantId};
use std::{net::SocketAddr, sync::Arc};

/// Who stands behind a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Somebody who reached a listener without credentials.
    Anonymous {
        /** The caller's address. */
        peer: SocketAddr,
    },
}

impl Principal {
    /// Whether the caller is on this machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Anonymous { peer } => peer.ip().to_canonical().is_loopback(),
        }
    }
}

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Ask whether the server or a model lives or is ready.
    Probe,
    /// Read metadata of the server.
    ReadServer,
    /// Read metadata or configuration of a model.
    ReadModel,
    /// Run a model.
    Infer,
    /// Make shared memory of the machine a source of inputs and a place for outputs, or ask which is.
    ShareMemory,
    /// Change what is served or how (load, unload, trace and log settings).
    Admin,
}

/// One question to the policy.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// What.
    pub verb: Verb,
    /// On which model, where the verb has one.
    pub model: Option<&'a ModelName>,
}

/// The policy's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, on behalf of this tenant.
    Allow(TenantId),
    /// Refused.
    Deny(Denied),
}

/// A refusal, with what the caller may be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// Why, for the caller: names no secret and no other tenant.
    pub reason: String,
}

/// The port behind which policies live. Pure: same question, same answer, no I/O on the request's way.
pub trait Admit: Send + Sync {
    /// Judges one question.
    fn decide(&self, ask: &Ask<'_>) -> Decision;
}

/// Proof that a caller may use `verb` on `model` for `tenant`.
#[derive(Debug)]
pub struct Permit {
    tenant: TenantId,
    verb: Verb,
    model: Option<ModelName>,
    /// Graphs that it came through.
    depth: u16,
}

impl Permit {
    /// On whose behalf.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// What was allowed.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// On which model; `None` for verbs about the whole server.
    pub fn model(&self) -> Option<&ModelName> {
        self.model.as_ref()
    }

    /// How many graphs it came through: each is within the one before.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// The same for a model that is a part of the graph that this one is for.
    #[must_use]
    pub fn for_member(&self, member: &ModelName) -> Self {
        let depth = self.depth.saturating_add(1);
        Self { tenant: self.tenant.clone(), verb: self.verb, model: Some(member.clone()), depth }
    }
}

/// The only place where permits are made.
#[derive(Clone)]
pub struct Gate(Arc<dyn Admit>);

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// A gate that asks `policy`.
    pub fn new(policy: Arc<dyn Admit>) -> Self {
        Self(policy)
    }

    /// Asks the policy.
    ///
    /// # Errors
    /// [`Denied`] as the policy gave it.
    pub fn admit(
        &self,
        principal: &Principal,
        verb: Verb,
        model: Option<&ModelName>,
    ) -> Result<Permit, Denied> {
        match self.0.decide(&Ask { principal, verb, model }) {
            Decision::Allow(tenant) => Ok(Permit { tenant, verb, model: model.cloned(), depth: 0 }),
            Decision::Deny(denied) => Err(denied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OnlyProbes;

    impl Admit for OnlyProbes {
        fn decide(&self, ask: &Ask<'_>) -> Decision {
            match ask.verb {
                Verb::Probe => Decision::Allow(TenantId::default_tenant()),
                _ => Decision::Deny(Denied { reason: "only probes".into() }),
            }
        }
    }

    #[test]
    fn a_permit_says_what_was_asked_and_a_denial_gives_none() {
        let gate = Gate::new(Arc::new(OnlyProbes));
        let who = Principal::Anonymous { peer: ([127, 0, 0, 1], 9).into() };
        let permit = gate.admit(&who, Verb::Probe, None).unwrap();
        assert_eq!((permit.verb(), permit.tenant().as_str()), (Verb::Probe, "default"));
        assert_eq!(gate.admit(&who, Verb::Admin, None).unwrap_err().reason, "only probes");
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_still_loopback() {
        let mapped = Principal::Anonymous { peer: "[::ffff:127.0.0.1]:1".parse().unwrap() };
        assert!(mapped.is_loopback());
        let outside = Principal::Anonymous { peer: "192.0.2.1:1".parse().unwrap() };
        assert!(!outside.is_loopback());
    }
}
