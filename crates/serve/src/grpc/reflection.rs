//! Server reflection, versions 1 and 1 alpha, over the services of this server: their messages are the same.
//!
//! An answer to a request for a file has the files that it imports as well. What is not known is told in band, as the
//! protocol has it. No service here has extensions.
//!
//! # Source
//! gRPC, "GRPC Server Reflection Protocol".
use crate::Service;
use prost_reflect::{DescriptorPool, FileDescriptor};
use std::{collections::BTreeMap, sync::OnceLock};
use xebec_core::{Code, InferError, Principal, Verb};
use xebec_net::wire::{
    DESCRIPTOR,
    reflection::{
        ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse,
        ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
};

/// The services, one for each version of the protocol.
pub(super) const SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
pub(super) const METHOD: &str = "ServerReflectionInfo";

/// The schema of every service, and in which file a name stands.
struct Schema {
    pool: DescriptorPool,
    symbols: BTreeMap<String, FileDescriptor>,
}

impl Schema {
    /// Read once: that takes a millisecond or two.
    fn get() -> Result<&'static Self, InferError> {
        static SCHEMA: OnceLock<Result<Schema, String>> = OnceLock::new();
        SCHEMA.get_or_init(Self::read).as_ref().map_err(|error| InferError::Internal(error.clone()))
    }

    fn read() -> Result<Self, String> {
        let pool = DescriptorPool::decode(DESCRIPTOR).map_err(|error| error.to_string())?;
        let mut symbols = BTreeMap::new();
        let mut add = |name: &str, file: FileDescriptor| symbols.insert(name.to_owned(), file);
        for message in pool.all_messages() {
            add(message.full_name(), message.parent_file());
            for field in message.fields() {
                add(field.full_name(), message.parent_file());
            }
        }
        for values in pool.all_enums() {
            add(values.full_name(), values.parent_file());
        }
        for service in pool.services() {
            add(service.full_name(), service.parent_file());
            for method in service.methods() {
                add(method.full_name(), service.parent_file());
            }
        }
        Ok(Self { pool, symbols })
    }

    fn answer(&self, request: &MessageRequest) -> MessageResponse {
        let unknown = |what: &str, name: &str| {
            let name: String = name.chars().take(200).collect();
            error(Code::NotFound, format!("unknown {what} '{name}'"))
        };
        match request {
            MessageRequest::FileByFilename(name) => {
                self.pool.get_file_by_name(name).map_or_else(|| unknown("file", name), with_imports)
            }
            MessageRequest::FileContainingSymbol(name) => {
                self.symbols.get(name).cloned().map_or_else(|| unknown("symbol", name), with_imports)
            }
            MessageRequest::FileContainingExtension(ExtensionRequest { containing_type, .. }) => {
                unknown("extension of", containing_type)
            }
            MessageRequest::AllExtensionNumbersOfType(name) => match self.pool.get_message_by_name(name) {
                None => unknown("type", name),
                Some(_) => MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: Vec::new(),
                }),
            },
            MessageRequest::ListServices(_) => {
                let mut service: Vec<ServiceResponse> = self
                    .pool
                    .services()
                    .map(|service| ServiceResponse { name: service.full_name().to_owned() })
                    .collect();
                service.sort_by(|a, b| a.name.cmp(&b.name));
                MessageResponse::ListServicesResponse(ListServiceResponse { service })
            }
        }
    }
}

/// A file, and behind it every file that it imports, each once.
fn with_imports(file: FileDescriptor) -> MessageResponse {
    let mut files = vec![file];
    let mut at = 0;
    while let Some(file) = files.get(at).cloned() {
        let new: Vec<FileDescriptor> = file.dependencies().filter(|import| !files.contains(import)).collect();
        files.extend(new);
        at += 1;
    }
    let file_descriptor_proto = files.iter().map(|file| file.encode_to_vec().into()).collect();
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
}

fn error(code: Code, error_message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code.grpc().into(), error_message })
}

impl Service {
    /// Answers one message of a reflection.
    pub(super) fn reflect(
        &self,
        principal: &Principal,
        request: ServerReflectionRequest,
    ) -> ServerReflectionResponse {
        let schema = self.admit(principal, Verb::ReadServer, None).and_then(|_| Schema::get());
        let response = match (schema, &request.message_request) {
            (Err(fault), _) => error(fault.code(), fault.to_string()),
            (Ok(_), None) => error(Code::InvalidArgument, "the request asks for nothing".into()),
            (Ok(schema), Some(wanted)) => schema.answer(wanted),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_leads_to_files_that_import_nothing_which_is_not_among_them() {
        let schema = Schema::get().unwrap();
        for symbol in [
            "inference.GRPCInferenceService",
            "inference.GRPCInferenceService.ModelInfer",
            "inference.ModelInferRequest.InferInputTensor",
            "inference.ModelConfig",
            "inference.DataType",
            "grpc.health.v1.Health.Check",
            "grpc.reflection.v1.ServerReflection",
        ] {
            let request = MessageRequest::FileContainingSymbol(symbol.into());
            let MessageResponse::FileDescriptorResponse(found) = schema.answer(&request) else {
                panic!("{symbol}")
            };
            let mut pool = DescriptorPool::new();
            // Imports come behind, so the last file stands alone.
            for file in found.file_descriptor_proto.iter().rev() {
                pool.decode_file_descriptor_proto(file.as_ref()).unwrap();
            }
        }
    }

    #[test]
    fn what_is_not_known_is_told_by_name_and_shortened() {
        let schema = Schema::get().unwrap();
        let long = "x".repeat(10_000);
        for request in [
            MessageRequest::FileByFilename("../etc/passwd".into()),
            MessageRequest::FileContainingSymbol(long.clone()),
            MessageRequest::FileContainingSymbol(String::new()),
            MessageRequest::AllExtensionNumbersOfType("inference.Nothing".into()),
            MessageRequest::FileContainingExtension(ExtensionRequest::default()),
        ] {
            let MessageResponse::ErrorResponse(error) = schema.answer(&request) else {
                panic!("{request:?}")
            };
            assert!(error.error_code == 5 && error.error_message.len() < 250, "{request:?}");
        }
    }
}
