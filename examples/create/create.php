<?php
// Create an instance on demand. Needs TOMADA_URL and TOMADA_PARTNER_TOKEN.
$hooks = "https://sistema.example.com.br/filial-centro";
$body = json_encode([
    "name" => "Filial Centro",
    "sessionName" => "Atendimento",
    "deliveryCallbackUrl" => "$hooks/delivery",
    "receivedCallbackUrl" => "$hooks/receive",
    "disconnectedCallbackUrl" => "$hooks/disconnected",
    "connectedCallbackUrl" => "$hooks/connected",
    "messageStatusCallbackUrl" => "$hooks/status",
], JSON_UNESCAPED_SLASHES);

$call = curl_init(getenv("TOMADA_URL") . "/instances/integrator/on-demand");
curl_setopt_array($call, [
    CURLOPT_POST => true,
    CURLOPT_POSTFIELDS => $body,
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_TIMEOUT => 30,
    CURLOPT_HTTPHEADER => [
        "Authorization: Bearer " . getenv("TOMADA_PARTNER_TOKEN"),
        "Content-Type: application/json",
    ],
]);
$reply = curl_exec($call);
if ($reply === false) {
    fwrite(STDERR, curl_error($call) . PHP_EOL);
    exit(1);
}
echo $reply . PHP_EOL;
exit(curl_getinfo($call, CURLINFO_RESPONSE_CODE) === 200 ? 0 : 1);
