"""Create an instance on demand. Needs TOMADA_URL and TOMADA_PARTNER_TOKEN."""

import json
import os
import sys
import urllib.error
import urllib.request

hooks = "https://sistema.example.com.br/filial-centro"
request = urllib.request.Request(
    os.environ["TOMADA_URL"] + "/instances/integrator/on-demand",
    data=json.dumps(
        {
            "name": "Filial Centro",
            "sessionName": "Atendimento",
            "deliveryCallbackUrl": f"{hooks}/delivery",
            "receivedCallbackUrl": f"{hooks}/receive",
            "disconnectedCallbackUrl": f"{hooks}/disconnected",
            "connectedCallbackUrl": f"{hooks}/connected",
            "messageStatusCallbackUrl": f"{hooks}/status",
        }
    ).encode(),
    headers={
        "Authorization": f"Bearer {os.environ['TOMADA_PARTNER_TOKEN']}",
        "Content-Type": "application/json",
    },
)
try:
    with urllib.request.urlopen(request, timeout=30) as reply:
        print(reply.read().decode())
except urllib.error.HTTPError as refused:
    print(refused.read().decode())
    sys.exit(1)
