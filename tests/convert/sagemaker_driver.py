"""Calls the handlers of an unpacked archive as the toolkit of AWS's containers does, in a process of its own.

Reads a JSON list of [body, content type, accept] from standard input; bodies are text, or null for none, and "bytes:"
begins one in hexadecimal digits. Prints the version of Python, where the code came from, and a JSON list of answers:
[status, type, body]. With the toolkit installed (sagemaker-mxnet-inference and multi-model-server) its own classes
call the handlers; without, this file does what they do.
"""

import importlib
import json
import os
import sys

model_dir = sys.argv[1]
sys.path.insert(0, os.path.join(model_dir, "code"))  # noqa: PTH118 - as the toolkit does


def content_of(body):
    if body is None:
        return bytearray()
    return bytearray.fromhex(body[6:]) if body.startswith("bytes:") else bytearray(body.encode())


def by_the_toolkit():
    """The calls go through the server's own worker classes."""
    from mms.service import Service
    from sagemaker_mxnet_serving_container.handler_service import HandlerService

    handler = HandlerService()
    service = Service("model", model_dir, {}, handler.handle, None, 1)
    handler.initialize(service.context)

    def call(body, content_type, accept):
        given = [("Content-Type", content_type), ("Accept", accept)]
        headers = [{"name": name.encode(), "value": value.encode()} for name, value in given if value is not None]
        parameter = {"name": "body", "value": content_of(body), "contentType": content_type}
        batch = [{"requestId": b"1", "parameters": [parameter], "headers": headers}]
        found, inputs, numbers = Service.retrieve_data_for_inference(batch)
        context = service.context
        context.request_processor, context.request_ids = found, numbers
        (answer,) = handler.handle(inputs, context)
        return int(context.get_response_status(0)[0]), context.get_response_content_type(0), answer

    return call


def by_hand():
    """The calls are those of `Transformer.transform` of sagemaker-inference 1.10.1."""
    module = importlib.import_module(os.environ.get("SAGEMAKER_PROGRAM", "inference.py")[: -len(".py")])
    assert not {"input_fn", "predict_fn", "output_fn"} & set(vars(module))  # not together with transform_fn
    model = module.model_fn(model_dir)

    def call(body, content_type, accept):
        data = content_of(body)
        try:
            if content_type in ("application/json", "text/csv"):
                data = data.decode("utf-8")
            accept = "application/json" if accept in (None, "*/*") else accept
            answer, kind = module.transform_fn(model, data, content_type, accept)
            return 200, kind, answer
        except Exception as error:
            return getattr(error, "status_code", 500), None, getattr(error, "message", str(error))

    return call


def main():
    try:
        call = by_the_toolkit()
    except ImportError:
        call = by_hand()
    answers = [call(*request) for request in json.load(sys.stdin)]
    import kogpt2_gluon

    print(json.dumps([sys.version.split()[0], kogpt2_gluon.__file__, answers]))


main()
