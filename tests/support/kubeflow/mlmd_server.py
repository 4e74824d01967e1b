"""The metadata store as a service: `MetadataStoreService` over gRPC in front of ml-metadata's C++ store, in memory.

Runs in the Python of LLM2LLM_MLMD_PYTHON, as a script. It prints its port, then answers lines of JSON on standard
input, {"method": "PutExecution", "request": {...}}, by calling its own service over gRPC: the tests' Python has no
gRPC. A line is answered with {"response": {...}} or {"code": "ALREADY_EXISTS", "error": "..."}. It ends with its input.
"""

import json
import sys
from concurrent import futures

import grpc
from google.protobuf import json_format
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as native
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

SERVICE = metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"]
CODES = {code.value[0]: code for code in grpc.StatusCode}


def handlers(store):
    """A handler for each method that the store has, on serialized messages."""

    def serve(method):
        def call(request, context):
            response, message, code = getattr(native, method)(store, request)
            if code:
                context.abort(CODES[code], message.decode() if isinstance(message, bytes) else message)
            return response

        return grpc.unary_unary_rpc_method_handler(call)

    return {one.name: serve(one.name) for one in SERVICE.methods if hasattr(native, one.name)}


def main():
    config = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()
    store = native.CreateMetadataStore(
        config.SerializeToString(), metadata_store_pb2.MigrationOptions().SerializeToString()
    )
    # One thread: the store in memory is one connection.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers(store)),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    types = {one.name: (one.input_type.name, one.output_type.name) for one in SERVICE.methods}
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for line in sys.stdin:
            asked = json.loads(line)
            request_type, response_type = (getattr(metadata_store_service_pb2, name) for name in types[asked["method"]])
            call = channel.unary_unary(
                f"/{SERVICE.full_name}/{asked['method']}",
                request_serializer=request_type.SerializeToString,
                response_deserializer=response_type.FromString,
            )
            try:
                response = call(json_format.ParseDict(asked["request"], request_type()))
                answer = {"response": json_format.MessageToDict(response, preserving_proto_field_name=True)}
            except grpc.RpcError as error:
                answer = {"code": error.code().name, "error": error.details()}
            print(json.dumps(answer), flush=True)
    server.stop(None)


if __name__ == "__main__":
    main()
