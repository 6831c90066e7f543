//! What was counted of models, in the form of the statistics extension.
//!
//! Requests are those of the caller's tenant; runs and batch sizes are the model's, for a run may serve several tenants.
//!
//! # Source
//! Triton Inference Server, "Statistics Extension".
use crate::Service;
use serde_json::{Map, Value, json};
use xebec_core::{Code, InferError, Permit, Principal, Verb, VersionRef, port::Upstream};
use xebec_net::wire::inference::{
    InferBatchStatistics, InferStatistics, ModelStatistics, ModelStatisticsResponse, StatisticDuration,
};

impl Service {
    /// Of one version; of all that serve of a model if `version` is empty; of all models if `name` is, too.
    ///
    /// # Errors
    /// As of routing: an unknown model or version, one that is not ready, a caller who may not.
    pub(crate) async fn statistics(
        &self,
        principal: &Principal,
        name: &str,
        version: &str,
    ) -> Result<ModelStatisticsResponse, InferError> {
        let model_stats = if name.is_empty() && version.is_empty() {
            self.admit(principal, Verb::ReadServer, None)?;
            let mut all = Vec::new();
            for row in &self.0.router.models() {
                let permit = self.admit(principal, Verb::ReadModel, Some(&row.name));
                match permit.and_then(|permit| {
                    self.count(&permit, row.version.map_or(VersionRef::Newest, VersionRef::Number))
                }) {
                    Ok(statistics) => all.push(statistics),
                    // Not this caller's, not served, or never in memory.
                    Err(error) if error.code() != Code::Internal => {}
                    Err(error) => return Err(error),
                }
            }
            all
        } else {
            let newest = self.read_about(principal, name, version).await?;
            if version.is_empty() {
                let versions = self.0.router.versions(&newest.permit);
                let each =
                    versions.iter().map(|version| self.count(&newest.permit, VersionRef::Number(*version)));
                // Of one that was never in memory nothing was counted.
                let each = each.filter(|one| !matches!(one, Err(InferError::NotResident { .. })));
                each.collect::<Result<_, _>>()?
            } else {
                vec![of(&newest.permit, &*newest.upstream)]
            }
        };
        Ok(ModelStatisticsResponse { model_stats })
    }

    fn count(&self, permit: &Permit, version: VersionRef<'_>) -> Result<ModelStatistics, InferError> {
        Ok(of(permit, &*self.0.router.describe(permit, version)?))
    }
}

fn of(permit: &Permit, upstream: &dyn Upstream) -> ModelStatistics {
    let (info, metrics) = (upstream.info(), upstream.metrics());
    let tenant = metrics.tenant(permit.tenant());
    let count = tenant.success.get();
    // What was answered from the cache neither waited nor ran.
    let ran = count.saturating_sub(tenant.cache.hits.get());
    let sum = |count: u64, ns: u64| Some(StatisticDuration { count, ns });
    let batch = |(batch_size, stats): (u64, &xebec_core::metrics::BatchStats)| {
        let runs = stats.runs.get();
        InferBatchStatistics {
            batch_size,
            compute_input: sum(runs, stats.input_ns.get()),
            compute_infer: sum(runs, stats.infer_ns.get()),
            compute_output: sum(runs, stats.output_ns.get()),
        }
    };
    ModelStatistics {
        name: info.name.to_string(),
        version: info.version.to_string(),
        last_inference: tenant.last_answer.epoch_milliseconds(),
        inference_count: tenant.rows.get(),
        execution_count: metrics.executions.get(),
        inference_stats: Some(InferStatistics {
            success: sum(count, tenant.request_ns.get()),
            fail: sum(tenant.failures(), tenant.failed_ns.get()),
            queue: sum(ran, tenant.queue_ns.get()),
            compute_input: sum(ran, tenant.compute_input_ns.get()),
            compute_infer: sum(ran, tenant.compute_infer_ns.get()),
            compute_output: sum(ran, tenant.compute_output_ns.get()),
            cache_hit: sum(tenant.cache.hits.get(), tenant.cache.hit_ns.get()),
            cache_miss: sum(tenant.cache.misses.get(), tenant.cache.miss_ns.get()),
        }),
        batch_stats: metrics.batches.iter().map(batch).collect(),
        ..ModelStatistics::default()
    }
}

/// The same as REST writes it.
pub(crate) fn json(response: &ModelStatisticsResponse) -> Value {
    let object = |fields: Vec<(&str, Option<StatisticDuration>)>| {
        let one = |(name, sum): (&str, Option<StatisticDuration>)| {
            let StatisticDuration { count, ns } = sum.unwrap_or_default();
            (name.to_owned(), json!({"count": count, "ns": ns}))
        };
        fields.into_iter().map(one).collect::<Map<_, _>>()
    };
    let batch = |batch: &InferBatchStatistics| {
        let mut fields = object(vec![
            ("compute_input", batch.compute_input),
            ("compute_infer", batch.compute_infer),
            ("compute_output", batch.compute_output),
        ]);
        fields.insert("batch_size".into(), batch.batch_size.into());
        fields
    };
    let model = |model: &ModelStatistics| {
        let stats = model.inference_stats.unwrap_or_default();
        json!({
            "name": model.name,
            "version": model.version,
            "last_inference": model.last_inference,
            "inference_count": model.inference_count,
            "execution_count": model.execution_count,
            "inference_stats": object(vec![
                ("success", stats.success),
                ("fail", stats.fail),
                ("queue", stats.queue),
                ("compute_input", stats.compute_input),
                ("compute_infer", stats.compute_infer),
                ("compute_output", stats.compute_output),
                ("cache_hit", stats.cache_hit),
                ("cache_miss", stats.cache_miss),
            ]),
            "response_stats": {},
            "batch_stats": model.batch_stats.iter().map(batch).collect::<Vec<_>>(),
            "memory_usage": [],
        })
    };
    json!({"model_stats": response.model_stats.iter().map(model).collect::<Vec<_>>()})
}
