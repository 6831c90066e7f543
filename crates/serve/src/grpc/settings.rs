//! Regions of shared memory, and the settings of the log and of traces, over gRPC.
use super::{parse, status};
use crate::{
    Service,
    log_settings::{FORMAT, Said},
    memory::Status,
};
use xebec_core::{InferError, Verb, log::LogSettings};
use xebec_net::{
    service::{GrpcCall, GrpcMessage, GrpcStatus},
    wire::inference::{
        LogSettingsRequest, LogSettingsResponse, SystemSharedMemoryRegisterRequest,
        SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
        SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest,
        SystemSharedMemoryUnregisterResponse, TraceSettingRequest, TraceSettingResponse,
        log_settings_request, log_settings_response, system_shared_memory_status_response::RegionStatus,
        trace_setting_response,
    },
};

impl Service {
    pub(super) fn grpc_shared_memory(
        &self,
        method: &str,
        call: &GrpcCall<'_>,
    ) -> Result<GrpcMessage, GrpcStatus> {
        let told = |error: InferError| status(&error, "");
        let memory = self.regions(call.principal).map_err(told)?;
        Ok(match method {
            "SystemSharedMemoryStatus" => {
                let SystemSharedMemoryStatusRequest { name } = parse(call)?;
                let region = |Status { name, key, offset, byte_size }| {
                    (name.clone(), RegionStatus { name, key, offset, byte_size })
                };
                let regions = memory.status(&name).map_err(told)?.into_iter().map(region).collect();
                GrpcMessage::encode(&SystemSharedMemoryStatusResponse { regions })
            }
            "SystemSharedMemoryUnregister" => {
                let SystemSharedMemoryUnregisterRequest { name } = parse(call)?;
                memory.unregister(&name);
                GrpcMessage::encode(&SystemSharedMemoryUnregisterResponse {})
            }
            _ => {
                let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = parse(call)?;
                memory.register(Status { name, key, offset, byte_size }).map_err(told)?;
                GrpcMessage::encode(&SystemSharedMemoryRegisterResponse {})
            }
        })
    }

    pub(super) fn grpc_log_settings(&self, call: &GrpcCall<'_>) -> Result<GrpcMessage, GrpcStatus> {
        // Nothing of a message is read for a caller who may not even look.
        let may = self.admit(call.principal, Verb::ReadServer, None);
        may.map_err(|error| status(&error, ""))?;
        let LogSettingsRequest { settings } = parse(call)?;
        let changes = settings.iter().map(|(name, value)| (name.as_str(), said(value)));
        let settings = self.log_settings(call.principal, changes);
        Ok(GrpcMessage::encode(&told(settings.map_err(|error| status(&error, ""))?)))
    }

    pub(super) fn grpc_trace_setting(&self, call: &GrpcCall<'_>) -> Result<GrpcMessage, GrpcStatus> {
        let refused = |error: InferError| status(&error, "");
        self.admit(call.principal, Verb::ReadServer, None).map_err(refused)?;
        let TraceSettingRequest { settings, model_name } = parse(call)?;
        let changes = settings.iter().map(|(name, said)| {
            let values = said.value.iter().map(|value| value.as_str().into()).collect();
            (name.as_str(), values)
        });
        let told = self.trace_settings(call.principal, &model_name, changes).map_err(refused)?;
        let one =
            |(name, value): (&str, _)| (name.to_owned(), trace_setting_response::SettingValue { value });
        Ok(GrpcMessage::encode(&TraceSettingResponse { settings: told.into_iter().map(one).collect() }))
    }
}

fn said(value: &log_settings_request::SettingValue) -> Said<'_> {
    use log_settings_request::setting_value::ParameterChoice;
    match &value.parameter_choice {
        Some(ParameterChoice::BoolParam(flag)) => Said::Bool(*flag),
        Some(ParameterChoice::Uint32Param(number)) => Said::Whole((*number).into()),
        Some(ParameterChoice::StringParam(text)) => Said::Text(text.into()),
        None => Said::Other,
    }
}

fn told(settings: LogSettings) -> LogSettingsResponse {
    use log_settings_response::{SettingValue, setting_value::ParameterChoice};
    let LogSettings { error, warning, info, verbose_level } = settings;
    let all = [
        ("log_file", ParameterChoice::StringParam(String::new())),
        ("log_info", ParameterChoice::BoolParam(info)),
        ("log_warning", ParameterChoice::BoolParam(warning)),
        ("log_error", ParameterChoice::BoolParam(error)),
        ("log_verbose_level", ParameterChoice::Uint32Param(verbose_level)),
        ("log_format", ParameterChoice::StringParam(FORMAT.into())),
    ];
    let one = |(name, choice): (&str, _)| (name.to_owned(), SettingValue { parameter_choice: Some(choice) });
    LogSettingsResponse { settings: all.into_iter().map(one).collect() }
}
