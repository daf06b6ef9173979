//! Proto JSON, which prost does not have: by way of the descriptors.

use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use crate::helper::root;

/// The descriptors of our protos.
#[derive(Clone)]
pub struct ProtoJson(DescriptorPool);

impl ProtoJson {
    /// Compiles the protos of the repository.
    pub fn compile() -> Self {
        let files = ["inference_service", "model_service", "server_service", "tokenizer_service"];
        let paths = files.map(|name| format!("mlx_grpc/v1/{name}.proto"));
        let files = protox::compile(paths, [root().join("protos")]).expect("the protos compile");
        Self(DescriptorPool::from_file_descriptor_set(files).unwrap())
    }

    /// A message of that name from proto JSON.
    pub fn read<M: Message + Default>(&self, name: &str, json: &Value) -> M {
        DynamicMessage::deserialize(self.descriptor(name), json).expect(name).transcode_to().unwrap()
    }

    /// A message as proto JSON, fields with default values included.
    pub fn write(&self, name: &str, message: &impl Message) -> Value {
        let mut dynamic = DynamicMessage::new(self.descriptor(name));
        dynamic.transcode_from(message).unwrap();
        let options = SerializeOptions::new().skip_default_fields(false);
        dynamic.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
    }

    fn descriptor(&self, name: &str) -> MessageDescriptor {
        self.0.get_message_by_name(&format!("mlx_grpc.v1.{name}")).expect(name)
    }
}
