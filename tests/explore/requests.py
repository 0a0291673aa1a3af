"""Requests to an explorer, for tests."""

import http.client
import json
from urllib.parse import urlencode


def get(server, path, **headers):
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def ask(server, path, **parameters):
    answer, body = get(server, f"{path}?{urlencode(parameters)}" if parameters else path)
    assert answer.status == 200, body
    return json.loads(body)
