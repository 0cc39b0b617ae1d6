// Create an instance on demand. Needs TOMADA_URL and TOMADA_PARTNER_TOKEN.
import { request as https } from "node:https";
import { request as http } from "node:http";

const url = new URL("/instances/integrator/on-demand", process.env.TOMADA_URL);
const send = url.protocol === "https:" ? https : http;
const hooks = "https://sistema.example.com.br/filial-centro";

const call = send(
  url,
  {
    method: "POST",
    headers: {
      authorization: `Bearer ${process.env.TOMADA_PARTNER_TOKEN}`,
      "content-type": "application/json", // without it the answer is 415
    },
  },
  (reply) => {
    const pieces = [];
    reply.on("data", (piece) => pieces.push(piece));
    reply.on("end", () => {
      console.log(Buffer.concat(pieces).toString());
      process.exitCode = reply.statusCode === 200 ? 0 : 1;
    });
  },
);
call.write(
  JSON.stringify({
    name: "Filial Centro",
    sessionName: "Atendimento",
    deliveryCallbackUrl: `${hooks}/delivery`,
    receivedCallbackUrl: `${hooks}/receive`,
    disconnectedCallbackUrl: `${hooks}/disconnected`,
    connectedCallbackUrl: `${hooks}/connected`,
    messageStatusCallbackUrl: `${hooks}/status`,
  }),
);
call.end();
