"""Drives the device API as somebody would who has only the .proto files: enrols, checks in, downloads, reports.

Shares no code with the project. Its stubs are made anew from the protos by grpc_tools, its CRC-32C is its own.

    drive.py PROTO_FOLDER ADDRESS ENROLMENT_STRING    enrols, prints the device's id and waits for a line on standard
                                                      input, then does the work it is given and prints what it saw
"""

import base64
import hashlib
import json
import os
import sys
import tempfile
import uuid

import grpc
import grpc_tools
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_tools import protoc

def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def make_stubs(protos, folder):
    device = [os.path.join("ota/device/v1", name) for name in os.listdir(os.path.join(protos, "ota/device/v1"))]
    well_known = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
    arguments = ["protoc", f"-I{protos}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(arguments + sorted(device)) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, folder)


def check_pin(pin, anchors):
    authority = x509.load_der_x509_certificate(anchors.certificate_authority).public_key()
    spki = authority.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    roots = [hashlib.sha256(root).digest() for root in (anchors.image_root, anchors.director_root)]
    over = hashlib.sha256(spki + roots[0] + roots[1]).digest()
    assert base64.b32encode(over).decode().lower().rstrip("=") == pin, "this is another server"


def check_certificate(enrolled, key, anchors):
    certificate = x509.load_der_x509_certificate(enrolled.certificate_chain[0])
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(anchors.certificate_authority))
    assert certificate.public_key() == key.public_key()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [f"urn:ota:device:{enrolled.device}"], names


def main(protos, address, enrolment_string, stubs):
    make_stubs(protos, stubs)
    from ota.device.v1 import enrollment_service_pb2 as enrollment
    from ota.device.v1 import enrollment_service_pb2_grpc as enrollment_grpc
    from ota.device.v1 import update_service_pb2 as update
    from ota.device.v1 import update_service_pb2_grpc as update_grpc

    channel = grpc.insecure_channel(address)
    kind, token_id, secret, pin = enrolment_string.split(".")
    assert kind == "ota1", kind
    enroller = enrollment_grpc.EnrollmentServiceStub(channel)
    anchors = enroller.GetTrustAnchors(enrollment.GetTrustAnchorsRequest(token_id=token_id), timeout=10)
    check_pin(pin, anchors)

    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    request = enrollment.EnrollRequest(
        token_id=token_id,
        secret=secret,
        hardware="python",
        certificate_request=request.public_bytes(serialization.Encoding.DER),
    )
    enrolled = enroller.Enroll(request, timeout=10)
    assert enrolled.state == enrollment.ENROLLMENT_STATE_ACCEPTED, enrolled
    check_certificate(enrolled, key, anchors)

    challenge = enroller.CreateChallenge(enrollment.CreateChallengeRequest(), timeout=10).challenge
    proof = b"ota-session-v1\0" + uuid.UUID(enrolled.device).bytes + challenge
    request = enrollment.CreateSessionRequest(
        device=enrolled.device, challenge=challenge, signature=key.sign(proof, ec.ECDSA(hashes.SHA256()))
    )
    bearer = "Bearer " + enroller.CreateSession(request, timeout=10).token
    call = {"metadata": (("authorization", bearer),), "timeout": 30}
    service = update_grpc.UpdateServiceStub(channel)

    try:
        service.CheckIn(update.CheckInRequest(), timeout=10)
        sys.exit("a call without a credential went well")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error

    answer = service.CheckIn(update.CheckInRequest(agent_version="0.0.1"), **call)
    assert not answer.deployments and answer.next_check_in.seconds > 0, answer
    # From here on there may be work.
    print(enrolled.device, flush=True)

    bell = service.Watch(update.WatchRequest(), **call)
    sys.stdin.readline()
    next(bell)
    bell.cancel()
    answer = service.CheckIn(update.CheckInRequest(agent_version="0.0.1"), **call)
    (deployment,) = answer.deployments

    sequence = 0

    def report(state, **fields):
        nonlocal sequence
        sequence += 1
        request = update.ReportProgressRequest(
            deployment=deployment.deployment, attempt=deployment.attempt, sequence=sequence, state=state, **fields
        )
        verdict = service.ReportProgress(request, **call).verdict
        assert verdict == update.VERDICT_CONTINUE, verdict

    report(update.DEPLOYMENT_STATE_DOWNLOADING)
    # In two ranges, as after an interruption.
    half, payload, pieces = deployment.payload.size_bytes // 2 + 1, b"", 0
    for offset, length in ((0, half), (half, 0)):
        request = update.DownloadRequest(sha256=deployment.payload.sha256, offset=offset, length=length)
        for piece in service.Download(request, **call):
            assert piece.offset == len(payload), (piece.offset, len(payload))
            assert 0 < len(piece.data) <= 256 * 1024, len(piece.data)
            assert piece.crc32c == crc32c(piece.data), piece.offset
            payload += piece.data
            pieces += 1
    assert len(payload) == deployment.payload.size_bytes, len(payload)
    assert hashlib.sha256(payload).digest() == deployment.payload.sha256

    report(update.DEPLOYMENT_STATE_INSTALLING, bytes_done=len(payload))
    running = update.RunningRelease(
        package=deployment.package, version=deployment.version, payload_sha256=deployment.payload.sha256
    )
    report(update.DEPLOYMENT_STATE_SUCCEEDED, running=[running])
    answer = service.CheckIn(update.CheckInRequest(agent_version="0.0.1", running=[running]), **call)
    assert not answer.deployments, answer
    print(json.dumps({"sha256": hashlib.sha256(payload).hexdigest(), "pieces": pieces}), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(*sys.argv[1:4], folder)
