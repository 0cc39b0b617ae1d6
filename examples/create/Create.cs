// Create an instance on demand. Needs TOMADA_URL and TOMADA_PARTNER_TOKEN.
using System;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;

const string hooks = "https://sistema.example.com.br/filial-centro";
var body = JsonSerializer.Serialize(new
{
    name = "Filial Centro",
    sessionName = "Atendimento",
    deliveryCallbackUrl = $"{hooks}/delivery",
    receivedCallbackUrl = $"{hooks}/receive",
    disconnectedCallbackUrl = $"{hooks}/disconnected",
    connectedCallbackUrl = $"{hooks}/connected",
    messageStatusCallbackUrl = $"{hooks}/status",
});

using var client = new HttpClient { Timeout = TimeSpan.FromSeconds(30) };
client.DefaultRequestHeaders.Authorization =
    new AuthenticationHeaderValue("Bearer", Environment.GetEnvironmentVariable("TOMADA_PARTNER_TOKEN"));
using var content = new StringContent(body, Encoding.UTF8, "application/json");
using var reply = await client.PostAsync(
    Environment.GetEnvironmentVariable("TOMADA_URL") + "/instances/integrator/on-demand", content);

Console.WriteLine(await reply.Content.ReadAsStringAsync());
return reply.IsSuccessStatusCode ? 0 : 1;
