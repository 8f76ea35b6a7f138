r"""The protobuf messages of remote write and remote read, for what is rare; the hot path is `tsdb.kernel.scan`.

The modules are generated and checked in. After a change of a .proto file:

    python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. remote/protos/*.proto
    sed -i '/^_runtime_version\./,/^)/d; /runtime_version/d' remote/protos/*_pb2.py

The second command takes out the check that ties generated code to one major version of the runtime: what is left is a
serialised descriptor and calls that every protobuf since 5.28 has.
"""
