#!/bin/sh
# Create an instance on demand. Needs TOMADA_URL and TOMADA_PARTNER_TOKEN.
set -eu

curl --silent --show-error --fail-with-body \
  --request POST "$TOMADA_URL/instances/integrator/on-demand" \
  --header "Authorization: Bearer $TOMADA_PARTNER_TOKEN" \
  --header "Content-Type: application/json" \
  --data '{
    "name": "Filial Centro",
    "sessionName": "Atendimento",
    "deliveryCallbackUrl": "https://sistema.example.com.br/filial-centro/delivery",
    "receivedCallbackUrl": "https://sistema.example.com.br/filial-centro/receive",
    "disconnectedCallbackUrl": "https://sistema.example.com.br/filial-centro/disconnected",
    "connectedCallbackUrl": "https://sistema.example.com.br/filial-centro/connected",
    "messageStatusCallbackUrl": "https://sistema.example.com.br/filial-centro/status"
  }'
echo
